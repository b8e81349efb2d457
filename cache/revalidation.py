"""Asking an origin whether it still has what it had: the shell of cache/proto/revalidation.py.

One call is one small request: HEAD, and where an origin does not know that, a GET that is left
at its headers. httpx2 is imported on first use.
"""

import ssl
from typing import Final

import trio

from cache.errors import OriginError
from cache.origin import CONNECT_S, REDIRECTS_MAX
from cache.proto.revalidation import Checked, Seen, compare, condition

CHECK_S: Final = 30.0
"""For the whole of a check, its redirects among it."""
_NO_HEAD: Final = (405, 501)


async def check_origin(url: str, seen: Seen, *, check_s: float = CHECK_S) -> Checked:
    """Ask once; raise OriginError when the origin cannot be asked or says nothing of use."""
    import httpx2

    timeout = httpx2.Timeout(check_s, connect=CONNECT_S)
    try:
        with trio.fail_after(check_s):
            async with httpx2.AsyncClient(
                timeout=timeout,
                follow_redirects=True,
                max_redirects=REDIRECTS_MAX,
                trust_env=False,
            ) as client:
                for method in ("HEAD", "GET"):
                    async with client.stream(method, url, headers=condition(seen)) as answer:
                        if method == "HEAD" and answer.status_code in _NO_HEAD:
                            continue
                        return compare(answer.status_code, dict(answer.headers), seen)
    except trio.TooSlowError as exc:
        raise OriginError(f"{url} did not answer within {check_s:g} s") from exc
    except httpx2.InvalidURL as exc:
        raise OriginError(f"{url!r} is not a URL: {exc}") from exc
    except (httpx2.HTTPError, httpx2.StreamError, ssl.SSLError) as exc:
        raise OriginError(f"{url}: {type(exc).__name__} {exc}".strip()) from exc
    raise AssertionError("a GET is always compared")
