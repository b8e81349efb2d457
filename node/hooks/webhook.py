"""Webhooks: one signed POST, and the status of its answer.

It knows no job. Rules: https alone, with a certificate that verifies or is the pinned one,
checked before a byte of the request leaves; redirects are not followed; of the answer the
status counts, and a bounded beginning is read. The header ``X-Rackmesh-Signature`` is
``sha256=`` and the HMAC-SHA256 (RFC 2104) of the body in hex; ``X-Rackmesh-Delivery`` and
``Idempotency-Key`` are the same over retries.
"""

import hashlib
import hmac
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import trio

from mesh.host.build import BUILD
from mesh.proto.hook import Hook
from node.hooks.outcome import HookFailed

ANSWER_BYTES_MAX: Final = 8 << 10
ANSWER_S: Final = 10.0
"""How long the beginning of an answer's body is waited for: its status has come."""
SECRET_BYTES_MAX: Final = 200
SENTENCE_CHARS_MAX: Final = 200
PASSING: Final = frozenset({408, 409, 423, 425, 429})
"""Statuses below 500 that may be others in a while."""


class _OtherCertificate(Exception):
    """The service showed another certificate than the pinned one; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What the service said."""

    status: int
    text: bytes


def signature(body: bytes, key: bytes) -> str:
    """Return the value of X-Rackmesh-Signature."""
    return f"sha256={hmac.new(key, body, hashlib.sha256).hexdigest()}"


async def deliver(hook: Hook, body: bytes, key: bytes, delivery: str) -> Answered:
    """POST once; return an answer of status 2xx or raise HookFailed with one sentence."""
    import httpx2

    assert hook.url is not None
    where = urlsplit(hook.url).netloc
    if not 0 < len(key) <= SECRET_BYTES_MAX:
        raise HookFailed(
            f"the secret {hook.secret} is no key of 1 to {SECRET_BYTES_MAX} bytes", False
        )
    headers = {
        "Content-Type": "application/json", "User-Agent": f"rackmesh/{BUILD}",
        "X-Rackmesh-Signature": signature(body, key), "X-Rackmesh-Delivery": delivery,
        "Idempotency-Key": delivery, "Accept-Encoding": "identity",
    }  # fmt: skip
    answer: Answered | None = None
    with trio.move_on_after(hook.timeout_s):
        try:
            answer = await _ask(hook.url, body, headers, hook.pin)
        except _OtherCertificate as exc:
            raise HookFailed(
                f"{where} shows a certificate with SHA-256 {exc}, which is not the pinned one",
                False,
            ) from exc
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as exc:
            raise HookFailed(f"{where} cannot be asked: {_why(exc)}", True) from exc
    if answer is None:
        raise HookFailed(f"{where} did not answer within {hook.timeout_s} s", True)
    if 200 <= answer.status < 300:
        return answer
    if 300 <= answer.status < 400:
        raise HookFailed(f"{where} answered {answer.status}: redirects are not followed", False)
    passing = answer.status >= 500 or answer.status in PASSING
    raise HookFailed(f"{where} answered {answer.status}", passing)


async def _ask(url: str, body: bytes, headers: dict[str, str], pin: str | None) -> Answered:
    import httpx2

    context = ssl.create_default_context()
    if pin is not None:  # checked below, before anything is sent
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    extensions = {"trace": _pin_check(pin)} if pin is not None else {}
    transport = httpx2.AsyncHTTPTransport(verify=context, trust_env=False)
    async with (
        httpx2.AsyncClient(
            transport=transport, trust_env=False, timeout=None, follow_redirects=False
        ) as client,
        client.stream(
            "POST", url, content=body, headers=headers, extensions=extensions
        ) as response,
    ):
        text = bytearray()
        # a cancellation unwinds httpx2's nested generators where `break` leaves them open
        with trio.move_on_after(ANSWER_S) as reading:
            try:
                async for piece in response.aiter_raw():
                    text += piece[:ANSWER_BYTES_MAX]
                    if len(text) >= ANSWER_BYTES_MAX:
                        reading.cancel()
            except httpx2.HTTPError:
                pass  # its status has come, and that is what counts
        return Answered(response.status_code, bytes(text[:ANSWER_BYTES_MAX]))


def _pin_check(pin: str) -> Callable[[str, dict[str, Any]], Any]:
    async def trace(event: str, info: dict[str, Any]) -> None:
        if not event.endswith("start_tls.complete"):
            return
        stream = info["return_value"]
        shown = stream.get_extra_info("ssl_object").getpeercert(binary_form=True)
        seen = hashlib.sha256(shown or b"").hexdigest()
        if not hmac.compare_digest(seen, pin):
            await stream.aclose()
            raise _OtherCertificate(seen)

    return trace


def _why(exc: BaseException) -> str:
    """Return the innermost words of a failure: httpx2's own are often empty."""
    said, cause = type(exc).__name__, exc
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
        said = str(cause) or said
    return (str(exc) or said)[:SENTENCE_CHARS_MAX]
