"""Signature checks that are remembered by (key, bytes) across all simulated members.

A check is a pure function of its arguments, so remembering it changes no result; it only spares
each of a thousand members the same curve arithmetic. Figures of simulations that use it say so.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from mesh.proto import sign

KEPT_MAX: Final = 400_000
"""Checks that are remembered; then all are forgotten."""

_checked: dict[tuple[bytes, bytes, bytes], bool] = {}


class RememberingKey:
    """Stands in for libsodium's key."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def verify(self, message: bytes, signature: bytes) -> bytes:
        """Return the message when the signature holds, as VerifyKey does."""
        name = (self._public, signature, message)
        holds = _checked.get(name)
        if holds is None:
            holds = _check(*name)
            if len(_checked) >= KEPT_MAX:
                _checked.clear()
            _checked[name] = holds
        if not holds:
            raise BadSignatureError
        return message


def _check(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        VerifyKey(public).verify(message, signature)
    except BadSignatureError:
        return False
    return True


@contextmanager
def remembered_signatures() -> Iterator[None]:
    """Remember signature checks while the block runs."""
    before = sign.VerifyKey
    sign.VerifyKey = RememberingKey  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        sign.VerifyKey = before  # type: ignore[misc]
