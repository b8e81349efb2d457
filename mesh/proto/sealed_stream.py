"""A long file under a key, piece by piece: AES-256-GCM in the STREAM construction.

It knows no file and no passphrase. Rules (Hoang, Reyhanitabar, Rogaway, Vizar 2015; as age
does it): every piece but the last has ``PIECE_BYTES`` of plaintext; the nonce is the piece's
number, 11 bytes, and one byte that says whether it is the last, so pieces cannot be dropped,
moved or cut off; the key seals one file only, since numbers start at nought. ``context`` is
covered by every piece.
"""

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mesh.errors import CodecError

KEY_BYTES: Final = 32
PIECE_BYTES: Final = 64 << 10
TAG_BYTES: Final = 16
SEALED_BYTES: Final = PIECE_BYTES + TAG_BYTES


class Sealer:
    """Turns plaintext into sealed pieces."""

    def __init__(self, key: bytes, context: bytes) -> None:
        assert len(key) == KEY_BYTES
        self._cipher, self._context = AESGCM(key), context
        self._number = 0
        self._held = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take plaintext; return what is sealed by now."""
        self._held += data
        sealed: list[bytes] = []
        while len(self._held) > PIECE_BYTES:  # the last piece is never empty, unless all is
            sealed.append(self._seal(bytes(self._held[:PIECE_BYTES]), last=False))
            del self._held[:PIECE_BYTES]
        return b"".join(sealed)

    def finish(self) -> bytes:
        """Return the last piece; nothing may be fed after it."""
        return self._seal(bytes(self._held), last=True)

    def _seal(self, piece: bytes, *, last: bool) -> bytes:
        nonce = _nonce(self._number, last)
        self._number += 1
        return self._cipher.encrypt(nonce, piece, self._context)


class Opener:
    """Turns sealed pieces back; raises CodecError for anything that was not sealed so."""

    def __init__(self, key: bytes, context: bytes) -> None:
        assert len(key) == KEY_BYTES
        self._cipher, self._context = AESGCM(key), context
        self._number = 0
        self._held = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take sealed bytes; return the plaintext that is proved by now."""
        self._held += data
        plain: list[bytes] = []
        while len(self._held) > SEALED_BYTES:
            plain.append(self._open(bytes(self._held[:SEALED_BYTES]), last=False))
            del self._held[:SEALED_BYTES]
        return b"".join(plain)

    def finish(self) -> bytes:
        """Return the rest; CodecError when the file was cut off."""
        return self._open(bytes(self._held), last=True)

    def _open(self, piece: bytes, *, last: bool) -> bytes:
        nonce = _nonce(self._number, last)
        self._number += 1
        try:
            return self._cipher.decrypt(nonce, piece, self._context)
        except (InvalidTag, ValueError) as exc:
            raise CodecError("a wrong key, or the bytes were changed or cut off") from exc


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
