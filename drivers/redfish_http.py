"""HTTP to one Redfish service, on httpx2 and trio, with a bound on everything.

Knows requests and answers, not what they mean. The rule: nothing goes to another host, nothing
is sent before a pinned certificate was seen, and no answer takes more than its time or bytes.
"""

import hashlib
import json
import math
import os
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import httpx2
import trio

from drivers.api import BmcLimits
from drivers.errors import DeviceLied, DeviceRefused, DeviceUnreachable, LoginRefused
from drivers.proto.redfish import MAX_BODY_BYTES, Address, clip, link, refusal

MAX_REDIRECTS: Final = 3
MAX_BUSY_TRIES: Final = 3
BUSY_WAIT_S_MAX: Final = 5.0
KEEPALIVE_S: Final = 2.0
"""Shorter than any BMC's own idle limit, so that a POST rarely meets a closing connection."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_BUSY: Final = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole; ``url`` is where it came from."""

    url: str
    method: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300


ClientFactory = Callable[[], httpx2.AsyncClient]


class CertificateMismatch(Exception):
    """The service showed another certificate than the pinned one; nothing was sent to it."""


def make_client(
    tls_sha256: str | None,
    local_address: str | None,
    *,
    connections: int = 2,
    connect_s: float | None = None,
) -> httpx2.AsyncClient:
    """Return a client that ignores proxies, netrc and cookies of this host's environment.

    Only with None the host's authorities are asked about certificates; who gives anything else
    looks at them itself.
    """
    context = ssl.create_default_context()
    if tls_sha256 is not None:  # the pin is checked below, before anything is sent
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    transport = httpx2.AsyncHTTPTransport(
        verify=context,
        trust_env=False,
        local_address=local_address,
        limits=httpx2.Limits(max_connections=connections, keepalive_expiry=KEEPALIVE_S),
    )
    return httpx2.AsyncClient(
        transport=transport,
        trust_env=False,
        timeout=httpx2.Timeout(None, connect=connect_s),
        follow_redirects=False,
    )


def _certificates(
    pin: str | None, note: Callable[[str], None] | None
) -> Callable[[str, dict[str, Any]], Any]:
    """Return a hook that notes the certificate of each connection, and refuses a wrong one."""

    async def trace(event: str, info: dict[str, Any]) -> None:
        if not event.endswith("start_tls.complete"):
            return
        stream = info["return_value"]
        shown = stream.get_extra_info("ssl_object").getpeercert(binary_form=True)
        seen = hashlib.sha256(shown or b"").hexdigest()
        if note is not None:
            note(seen)
        if pin is not None and seen != pin:
            await stream.aclose()
            raise CertificateMismatch(seen)

    return trace


class BmcHttp:
    """Requests to one service; not for concurrent use."""

    def __init__(
        self,
        address: Address,
        client: httpx2.AsyncClient,
        pin: str | None,
        limits: BmcLimits,
        note: Callable[[str], None] | None = None,
    ) -> None:
        """``note`` is told the SHA-256 of every certificate that is shown."""
        self._origin = address.origin
        self._client = client
        self._request_s, self._may_send = limits.request_s, limits.may_send
        hooked = pin is not None or note is not None
        self._extensions = {"trace": _certificates(pin, note)} if hooked else {}

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
    ) -> Answer:
        """Send one request; follow same-host redirects of a GET, wait out a busy service."""
        content = b"" if body is None else json.dumps(body).encode()
        redirects = busy = 0
        broken = False
        while True:
            try:
                answer = await self._once(method, path, content, headers or {}, auth)
            except _ConnectionBroke as exc:
                if method != "GET" or broken:  # only a GET may be sent twice unasked
                    raise DeviceUnreachable(str(exc)) from exc
                broken = True
                continue
            if answer.status in _BUSY and busy < MAX_BUSY_TRIES - 1:
                busy += 1
                await trio.sleep(_retry_after(answer.headers.get("retry-after")))
                continue
            if answer.status not in _REDIRECTS:
                return answer
            path = self._redirected(answer)
            redirects += 1
            if method != "GET" or redirects > MAX_REDIRECTS:
                raise DeviceRefused(
                    f"{method} {answer.url}: status {answer.status}, redirected once too often"
                )

    def _redirected(self, answer: Answer) -> str:
        target = urljoin(answer.url, answer.headers.get("location", ""))
        parts = urlsplit(target)
        path = link(parts.path + (f"?{parts.query}" if parts.query else ""))
        if f"{parts.scheme}://{parts.netloc}" != self._origin or path is None:
            raise DeviceRefused(
                f"{answer.method} {answer.url}: status {answer.status} redirects to another"
                f" place ({clip(target)}), which is not followed"
            )
        return path

    async def _once(
        self,
        method: str,
        path: str,
        content: bytes,
        headers: Mapping[str, str],
        auth: tuple[str, str] | None,
    ) -> Answer:
        url = self._origin + path
        said = f"{method} {url}"
        send = {"accept": "application/json", "accept-encoding": "identity", **headers}
        if content:
            send["content-type"] = "application/json"
        if not self._may_send():
            raise DeviceRefused(f"{said}: not sent, another node may have the job by now")
        try:
            with trio.fail_after(self._request_s):
                async with self._client.stream(
                    method,
                    url,
                    content=content,
                    headers=send,
                    auth=auth,
                    extensions=self._extensions,
                ) as response:
                    body = await _read(response, said)
                    found = {k.lower(): v for k, v in response.headers.items()}
                    return Answer(url, method, response.status_code, found, body)
        except trio.TooSlowError as exc:
            raise DeviceUnreachable(f"{said}: no answer within {self._request_s:g} s") from exc
        except CertificateMismatch as exc:
            raise DeviceRefused(
                f"{said}: the certificate's SHA-256 is {exc}, not the one in the secret"
            ) from exc
        except httpx2.ConnectError as exc:
            raise self._connect_failed(said, exc) from exc
        except (httpx2.TransportError, httpx2.StreamError) as exc:
            raise _ConnectionBroke(f"{said}: the connection broke ({_why(exc)})") from exc
        except (httpx2.InvalidURL, httpx2.DecodingError, ValueError) as exc:
            raise DeviceLied(f"{said}: {_why(exc)}") from exc

    def _connect_failed(self, said: str, exc: Exception) -> Exception:
        text = _why(exc)
        if _caused_by(exc, ssl.SSLCertVerificationError):
            return DeviceRefused(
                f"{said}: its certificate is not signed by an authority of this host; compare"
                " its SHA-256 fingerprint at the BMC and store it as tls_sha256 in the secret"
            )
        return DeviceUnreachable(f"{said}: cannot connect ({text})")


class _ConnectionBroke(Exception):
    """The transport failed after the connection stood; the outcome there is unknown."""


async def _read(response: httpx2.Response, said: str) -> bytes:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise DeviceLied(f"{said}: status {response.status_code}, an encoding nobody asked for")
    parts: list[bytes] = []
    have = 0
    # A cancellation unwinds httpx2's nested generators where `raise` would leave them open.
    with trio.CancelScope() as scope:
        async for part in response.aiter_raw():
            have += len(part)
            if have > MAX_BODY_BYTES:
                scope.cancel()
            else:
                parts.append(part)
    if have > MAX_BODY_BYTES:
        raise DeviceLied(
            f"{said}: status {response.status_code}, an answer of more than"
            f" {MAX_BODY_BYTES} bytes"
        )
    return b"".join(parts)


def _retry_after(value: str | None) -> float:
    try:
        seconds = float(value or "1")
    except ValueError:
        return 1.0
    return 1.0 if math.isnan(seconds) else min(max(seconds, 0.1), BUSY_WAIT_S_MAX)


def _caused_by(exc: BaseException | None, kind: type[BaseException]) -> bool:
    while exc is not None and not isinstance(exc, kind):
        exc = exc.__cause__ or exc.__context__
    return exc is not None


def _why(exc: BaseException) -> str:
    """Return the system's own words, or the first in the chain; httpx2's are often empty."""
    cause: BaseException | None = exc
    first = ""
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            number = cause.errno or 0  # negative: a resolver's, which has words of its own
            return os.strerror(number) if number > 0 else clip(cause.strerror)
        if isinstance(cause, BaseExceptionGroup):  # one per address that was tried
            return _why(cause.exceptions[0])
        first = first or clip(str(cause))
        cause = cause.__cause__ or cause.__context__
    return first or type(exc).__name__


def complain(answer: Answer) -> DeviceRefused:
    """Return the error for an answer that is not 2xx, with what the device said about it."""
    reasons = {
        401: "the user or password was refused",
        403: "this user may not do that",
        404: "there is nothing at this address",
        405: "the service does not know this operation",
    }
    said = refusal(answer.body)
    why = reasons.get(answer.status, "the service refused")
    if answer.status >= 500:
        why = "the service failed"
    kind = LoginRefused if answer.status == 401 else DeviceRefused
    return kind(
        f"{answer.method} {answer.url}: status {answer.status}, {why}"
        + (f": {said}" if said else "")
    )


@asynccontextmanager
async def open_http(
    address: Address, client_factory: ClientFactory, pin: str | None, limits: BmcLimits
) -> AsyncGenerator[BmcHttp]:
    """Give a `BmcHttp` and close its connections in the end."""
    client = client_factory()
    try:
        yield BmcHttp(address, client, pin, limits)
    finally:
        with trio.move_on_after(1, shield=True):
            await client.aclose()
