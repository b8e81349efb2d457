"""Web addresses that stand in shared rows: of images, of BMCs.

It knows no network. Rule: a row is read by every node that carries its scope, so an address in
one never holds a user name or a password.
"""

from urllib.parse import urlsplit


def why_no_url(url: str, chars_max: int) -> str | None:
    """Say what keeps a text from being an http or https URL for a shared row, or None.

    The words go on a field's name: "url must be ...".
    """
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname)
        named = parts.username is not None or parts.password is not None
        sound = sound and parts.port != 0
    except ValueError:  # an impossible port or bracket
        sound, named = False, False
    if named:
        return "must not hold a user name or password: every node can read it"
    if not sound or len(url) > chars_max or not url.isprintable() or " " in url:
        shown = url.rpartition("@")[2][:100]
        return f"must be an http or https URL, not {shown!r}"
    return None
