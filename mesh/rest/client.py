"""The one client of ``/api/v1``: over a daemon's ``api.sock`` or to a hub's HTTPS port.

It knows the transport and the error documents, not the verbs. Rule: whatever goes wrong ends as
one ``ApiError`` with a stable code and one sentence.
"""

import hashlib
import json
import ssl
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

TIMEOUT_S: Final = 30.0
EVENT_S: Final = 60.0
"""Silence after which a stream of events is dead; a hub says something every 15 s."""
LINE_BYTES_MAX: Final = 1 << 20
PAGE: Final = 1000
_OTHER_CERTIFICATE: Final = "certificate of another fingerprint"


class ApiError(Exception):
    """A request that did not succeed; ``str(error)`` is one sentence for people."""

    def __init__(
        self, code: str, sentence: str, status: int = 0, hint: str | None = None
    ) -> None:
        super().__init__(f"{sentence} ({hint})" if hint else sentence)
        self.code = code
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the API is: a unix socket, or an HTTPS address with a token and fingerprint."""

    socket: Path | None = None
    url: str | None = None
    token: str | None = None
    tls_sha256: str | None = None

    def __repr__(self) -> str:
        """Show where, never the token."""
        return f"Target({self.socket or self.url})"


class ApiClient:
    """Requests to one daemon; close it after use."""

    def __init__(self, target: Target) -> None:
        self.target = target
        headers = {"Accept": "application/json", "User-Agent": "rackmesh-cli"}
        if target.token:
            headers["Authorization"] = f"Bearer {target.token}"
        if target.socket is not None:
            transport = httpx2.HTTPTransport(uds=str(target.socket))
            base = "http://rackmesh"
        else:
            assert target.url is not None
            transport = httpx2.HTTPTransport(verify=_context(target))
            base = target.url.rstrip("/")
        self._http = httpx2.Client(
            transport=transport,
            base_url=f"{base}/api/v1",
            headers=headers,
            timeout=TIMEOUT_S,
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """GET a resource; return the decoded JSON."""
        return self._request("GET", path, params=_given(query))

    def find(self, path: str) -> Any:
        """GET a resource; None when there is none."""
        try:
            return self.get(path)
        except ApiError as exc:
            if exc.code == "not-found":
                return None
            raise

    def every(self, path: str, limit: int | None = None, **query: Any) -> Any:
        """GET a list, page by page to its end or to ``limit``; return it as one answer.

        ``next`` in it is null unless the limit left something out.
        """
        whole: dict[str, Any] = {"items": [], "next": None}
        while True:
            have = len(whole["items"])
            left = PAGE if limit is None else min(PAGE, limit - have)
            page = self.get(path, limit=left, cursor=whole["next"], **query)
            whole = {**page, "items": [*whole["items"], *page["items"]]}
            if whole["next"] is None or len(whole["items"]) == limit:
                return whole

    def post(self, path: str, body: Any, key: str | None = None) -> Any:
        """POST a JSON body, under an idempotency key; return the decoded JSON."""
        headers = {"Idempotency-Key": key} if key is not None else {}
        return self._request("POST", path, json=body, headers=headers)

    def put(self, path: str, content: Iterable[bytes], size: int, **query: Any) -> Any:
        """PUT a stream of bytes of known size."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        return self._request(
            "PUT", path, content=content, headers=headers, params=_given(query), timeout=None
        )

    def put_json(self, path: str, body: Any) -> Any:
        """PUT a JSON body."""
        return self._request("PUT", path, json=body)

    def patch(self, path: str, body: Any) -> Any:
        """PATCH a resource with the fields that change."""
        return self._request("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        """DELETE a resource."""
        return self._request("DELETE", path)

    def pieces(self, path: str, offset: int = 0) -> Iterator[bytes]:
        """GET bytes from an offset on, piece by piece; ApiError when the daemon breaks off."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with (
            self._errors(),
            self._http.stream("GET", path, headers=headers, timeout=None) as response,
        ):
            if response.status_code >= 400:
                response.read()
                raise _problem(response)
            if offset and response.status_code != 206:
                raise ApiError("failed", f"the daemon does not go on at byte {offset}")
            yield from response.iter_raw()

    def lines(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Follow a stream of JSON lines until the daemon ends it."""
        with (
            self._errors(),
            self._http.stream("GET", path, params=_given(query), timeout=None) as response,
        ):
            if response.status_code >= 400:
                response.read()
                raise _problem(response)
            for line in response.iter_lines():
                if line and len(line) <= LINE_BYTES_MAX:
                    yield json.loads(line)

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """Follow server-sent events until the daemon ends them: {"kind", "data"} each."""
        kind = "message"
        with (
            self._errors(),
            self._http.stream("GET", path, timeout=EVENT_S) as response,
        ):
            if response.status_code >= 400:
                response.read()
                raise _problem(response)
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data" and len(line) <= LINE_BYTES_MAX:
                    yield {"kind": kind, "data": json.loads(value)}

    def _request(self, method: str, path: str, **kwargs: Any) -> Any:
        with self._errors():
            response = self._http.request(method, path, **kwargs)
            if response.status_code >= 400:
                raise _problem(response)
            return response.json() if response.content else None

    @contextmanager
    def _errors(self) -> Generator[None]:
        where = self.target.socket or self.target.url
        try:
            yield
        except httpx2.InvalidURL as exc:
            raise ApiError("bad-request", f"no such address: {exc}") from exc
        except httpx2.ConnectError as exc:
            if _OTHER_CERTIFICATE in str(exc):
                sentence = f"{where} does not have the TLS fingerprint that was given"
                raise ApiError("denied", f"{sentence}; nothing was sent") from exc
            raise ApiError("unreachable", f"nothing answers at {where}: {exc}") from exc
        except httpx2.TimeoutException as exc:
            raise ApiError(
                "unreachable", f"{where} did not answer in {TIMEOUT_S:.0f} s"
            ) from exc
        except httpx2.HTTPError as exc:
            raise ApiError("unreachable", f"the connection to {where} failed: {exc}") from exc
        except json.JSONDecodeError as exc:
            raise ApiError("failed", f"{where} did not answer in JSON") from exc


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in query.items() if value is not None}


def _context(target: Target) -> ssl.SSLContext:
    """TLS 1.3; a self-signed hub is checked by its printed fingerprint."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if target.tls_sha256 is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.sslsocket_class = _pinned(target.tls_sha256)
    return context


def _pinned(tls_sha256: str) -> type[ssl.SSLSocket]:
    wanted = tls_sha256.lower().replace(":", "")

    class Pinned(ssl.SSLSocket):
        """A TLS connection that ends unless the certificate has the given fingerprint."""

        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            der = self.getpeercert(binary_form=True) or b""
            if hashlib.sha256(der).hexdigest() != wanted:
                raise ssl.SSLError(_OTHER_CERTIFICATE)

    return Pinned


def _problem(response: httpx2.Response) -> ApiError:
    try:
        document = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        document = {}
    if not isinstance(document, dict):
        document = {}
    detail = document.get("detail") or document.get("title") or response.reason_phrase
    code = document.get("code") or {
        400: "bad-request", 401: "denied", 403: "denied", 404: "not-found", 409: "conflict",
        412: "conflict", 422: "bad-request", 429: "denied", 503: "unreachable", 504: "timeout",
    }.get(response.status_code, "failed")  # fmt: skip
    hint = document.get("hint")
    return ApiError(str(code), str(detail), response.status_code, str(hint) if hint else None)
