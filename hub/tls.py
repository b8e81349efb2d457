"""The hub's TLS: a self-signed certificate people check by fingerprint, TLS 1.3 only.

The certificate names nobody the mesh relies on (peers are authenticated inside, by Noise); it
protects browsers and API clients. Rule: made once and kept, so that the printed fingerprint
stays true; ``mesh/link/tls.py`` holds the rule on versions and suites.
"""

import datetime
import hashlib
import ipaddress
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.errors import Refused
from mesh.host.files import write_file
from mesh.link.tls import server_context

VALID_DAYS: Final = 3650
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


def make_certificate(names: list[str], now_ms: int) -> tuple[bytes, bytes]:
    """Return a P-384 key and a self-signed certificate for it, both PEM."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rackmesh hub")])
    now = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([_name(n) for n in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=False)
        .sign(key, hashes.SHA384())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return key_pem, certificate.public_bytes(serialization.Encoding.PEM)


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
