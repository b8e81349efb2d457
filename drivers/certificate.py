"""The certificate that a BMC shows, for a person to compare before a login is sent there.

It sends no request and no login: the connection ends with the handshake. Rule: what it shows
proves nothing by itself; it counts when somebody has seen the same at the BMC.
"""

import hashlib
import ssl
from typing import Final

import trio
from cryptography import x509

from drivers.errors import DeviceRefused, DeviceUnreachable
from drivers.proto.health import NAME_CHARS_MAX, Certificate, words
from drivers.proto.redfish import parse_address

WAIT_S: Final = 10.0


async def look(url: str, local_address: str | None) -> Certificate:
    """Return the certificate at an ``https://`` address, whoever has signed it."""
    try:
        address = parse_address(url)
    except ValueError as exc:
        raise DeviceRefused(str(exc)) from exc
    if not address.tls:
        raise DeviceRefused(f"{url}: only an https:// address shows a certificate")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with trio.fail_after(WAIT_S):
            raw = await trio.open_tcp_stream(
                address.host, address.port, local_address=local_address
            )
            async with raw:
                stream = trio.SSLStream(raw, context, server_hostname=address.host)
                await stream.do_handshake()
                shown = stream.getpeercert(binary_form=True)
    except trio.TooSlowError as exc:
        raise DeviceUnreachable(f"{url}: no certificate within {WAIT_S:g} s") from exc
    except (OSError, trio.BrokenResourceError, ssl.SSLError, ValueError) as exc:
        why = words(getattr(exc, "strerror", None) or "") or type(exc).__name__
        raise DeviceUnreachable(f"{url}: shows no certificate ({why})") from exc
    if not isinstance(shown, bytes) or not shown:
        raise DeviceRefused(f"{url}: shows no certificate")
    subject, until_ms = _read(shown)
    return Certificate(
        sha256=hashlib.sha256(shown).hexdigest(), subject=subject, until_ms=until_ms
    )


def _read(shown: bytes) -> tuple[str, int | None]:
    """Return subject and end; BMCs make certificates that nobody can read."""
    try:
        found = x509.load_der_x509_certificate(shown)
        until_ms = round(found.not_valid_after_utc.timestamp() * 1000)
        return words(found.subject.rfc4514_string(), NAME_CHARS_MAX), until_ms
    except Exception:  # the fingerprint is what counts
        return "", None
