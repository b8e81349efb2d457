"""The hub's TLS: a self-signed certificate people check by fingerprint, TLS 1.3 only.

The certificate names nobody the mesh relies on (peers are authenticated inside, by Noise); it
protects browsers and API clients. Rule: made once and kept, so that the printed fingerprint
stays true; ``mesh/link/tls.py`` holds the rule on versions and suites.
"""

import hashlib
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mesh.errors import Refused
from mesh.host.files import write_file
from mesh.link.certificate import make_certificate
from mesh.link.tls import server_context

ALPN: Final = ["h2", "http/1.1"]
"""Browsers get HTTP/2: one connection for all open pages' event streams; members say 1.1."""
KEY_FILE: Final = "tls.key"
CERTIFICATE_FILE: Final = "tls.crt"


@dataclass(frozen=True, slots=True)
class Tls:
    """A ready context and the SHA-256 of the certificate it shows."""

    context: ssl.SSLContext
    sha256: bytes

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint as browsers print it."""
        return self.sha256.hex(":").upper()


def load_or_make_tls(folder: Path, names: Iterable[str], now_ms: int) -> Tls:
    """Load the certificate of an earlier start, or make one for these names or addresses."""
    key_path, certificate_path = folder / KEY_FILE, folder / CERTIFICATE_FILE
    if not certificate_path.exists():
        key_pem, certificate_pem = make_certificate(list(names), now_ms)
        write_file(key_path, key_pem, 0o600)
        write_file(certificate_path, certificate_pem, 0o644)
    try:
        context = server_context(certificate_path, key_path)
        context.set_alpn_protocols(ALPN)
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    except (OSError, ValueError, ssl.SSLError) as exc:
        raise Refused(f"the TLS certificate in {folder} cannot be used: {exc}") from exc
    der = certificate.public_bytes(serialization.Encoding.DER)
    return Tls(context, hashlib.sha256(der).digest())
