"""TLS contexts and checks for the hub's port: TLS 1.3 alone, and only 256-bit suites count.

It knows no certificates' owners: between members Noise says who the peer is, TLS is the outer
wrapper. Rule: no byte of the mesh goes over a TLS session before ``require_strong`` passed.
"""

import hashlib
import ssl
from pathlib import Path
from typing import Final

import trio

from mesh.errors import RemoteError

STRENGTH_BITS_MIN: Final = 256
ALPN: Final = ["http/1.1"]


class TlsRefused(RemoteError):
    """The TLS session is not what we accept; it was closed."""


def client_context() -> ssl.SSLContext:
    """Return the context with which a node dials a hub: no CA, since Noise authenticates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(ALPN)
    return context


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the context of a hub's port; our order of suites wins: browsers get 256 bits."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(ALPN)
    return context


def require_strong(
    stream: "trio.SSLStream[trio.SocketStream]", fingerprint: bytes | None = None
) -> None:
    """Check a session after its handshake: version, suite and, if given, the certificate.

    ``fingerprint`` is the SHA-256 of the certificate's DER form. Raises TlsRefused.
    """
    cipher = stream.cipher()
    if stream.version() != "TLSv1.3" or cipher is None or cipher[2] < STRENGTH_BITS_MIN:
        raise TlsRefused(f"TLS 1.3 with a 256-bit suite is required, this is {cipher}")
    if fingerprint:
        certificate = stream.getpeercert(binary_form=True) or b""
        if hashlib.sha256(certificate).digest() != fingerprint:
            raise TlsRefused("the hub's TLS certificate has another fingerprint")
