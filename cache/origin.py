"""Reading an origin over HTTP: the shell of cache/proto/origin.py.

One call makes one try; the caller repeats. httpx2 is imported on first use.
"""

import ssl
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from cache.errors import CacheError, OriginError
from cache.intake import Intake
from cache.proto.origin import Answer, Partial, judge, request_headers

CONNECT_S: Final = 10.0
READ_S: Final = 30.0
"""A source that sends nothing for so long is given up for now."""
PIECE_BYTES: Final = 1 << 18
REDIRECTS_MAX: Final = 5

Progress = Callable[[int], Awaitable[None]]


async def read_origin(
    url: str,
    intake: Intake,
    validator: str | None,
    *,
    declared: bool,
    started: Callable[[Answer], None],
    progress: Progress,
    limiter: trio.CapacityLimiter,
) -> None:
    """Append what is missing of ``url`` to ``intake``; raise OriginError when it stops short.

    ``started`` sees the judged answer before the first byte; ``progress`` gets the length of
    each piece after it was written and hashed. What it raises, and OSError (disk full), ends
    the transfer and passes through.
    """
    import httpx2

    timeout = httpx2.Timeout(READ_S, connect=CONNECT_S)
    headers = request_headers(Partial(intake.length, validator), declared)
    failed: list[OSError | CacheError] = []
    try:
        async with (
            httpx2.AsyncClient(
                timeout=timeout,
                follow_redirects=True,
                max_redirects=REDIRECTS_MAX,
                trust_env=False,
            ) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
            answer = judge(
                response.status_code, dict(response.headers), Partial(intake.length, validator)
            )
            if answer.action == "restart":
                await trio.to_thread.run_sync(intake.restart, limiter=limiter)
            if answer.start < 0:
                raise OriginError("the origin has less than we had of it; starting again")
            started(answer)
            # Leaving the loop would leave its generators; a cancelled one unwinds them.
            with trio.CancelScope() as scope:
                async for piece in response.aiter_raw(PIECE_BYTES):
                    if failed:
                        continue
                    # For one piece: cancelled here, the loop would be left.
                    with trio.CancelScope(shield=True):
                        try:
                            await trio.to_thread.run_sync(intake.append, piece, limiter=limiter)
                            await progress(len(piece))
                        except (OSError, CacheError) as exc:
                            failed.append(exc)
                            scope.cancel()
    except httpx2.InvalidURL as exc:
        raise OriginError(f"{url!r} is not a URL: {exc}") from exc
    except (httpx2.HTTPError, httpx2.StreamError, ssl.SSLError) as exc:
        raise OriginError(f"{url}: {type(exc).__name__} {exc}".strip()) from exc
    if failed:
        raise failed[0]
    if answer.size is not None and intake.length != answer.size:
        raise OriginError(f"{url} ended after {intake.length} of {answer.size} bytes")
