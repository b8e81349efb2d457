"""Web addresses that stand in shared rows: of images, of BMCs.

It knows no network. Rule: a row is read by every node that carries its scope, so an address in
one never holds a user name or a password.
"""

from typing import Final
from urllib.parse import urlsplit

WEB_SCHEMES: Final = ("http", "https")
BMC_SCHEMES: Final = (*WEB_SCHEMES, "ipmi")


def why_no_url(url: str, chars_max: int, schemes: tuple[str, ...] = WEB_SCHEMES) -> str | None:
    """Say what keeps a text from being a URL of these schemes for a shared row, or None.

    The words go on a field's name: "url must be ...". An ipmi URL is a host and a port alone.
    """
    shown = url.rpartition("@")[2][:100]
    known = f"{', '.join(schemes[:-1])} or {schemes[-1]}"
    wrong = f"must be an {known} URL, not {shown!r}"
    try:
        parts = urlsplit(url)
        sound = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an impossible port or bracket
        return wrong
    if parts.username is not None or parts.password is not None:
        return "must not hold a user name or password: every node can read it"
    if not sound or len(url) > chars_max or not url.isprintable() or " " in url:
        return wrong
    if parts.scheme == "ipmi" and (parts.path.strip("/") or parts.query or parts.fragment):
        return f"must be ipmi://HOST or ipmi://HOST:PORT, not {shown!r}"
    return None
