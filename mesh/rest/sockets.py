"""The WebSockets of ``/api/v1``: over a daemon's ``api.sock`` or to a hub's HTTPS port.

The asynchronous sister of ``client.py``, with the same target and the same errors. Rule:
nothing is sent to a hub whose certificate has another fingerprint than the one given.
"""

import hashlib
import json
import ssl
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import trio

from mesh.host.web_socket import (
    MessageSocket,
    WebSocketLost,
    WebSocketRefused,
    open_web_socket,
)
from mesh.rest.client import ApiError, Target

OPEN_S: Final = 15.0
HUB_PORT: Final = 443


async def open_api_socket(target: Target, path: str, **query: bool) -> MessageSocket:
    """Open the WebSocket at a path below /api/v1; raises ApiError."""
    where = target.socket or target.url
    asked = urlencode({name: "true" for name, yes in query.items() if yes})
    whole = f"/api/v1{path}" + (f"?{asked}" if asked else "")
    headers: list[tuple[bytes, bytes]] = [(b"User-Agent", b"rackmesh-cli")]
    if target.token:
        headers.append((b"Authorization", f"Bearer {target.token}".encode()))
    try:
        with trio.fail_after(OPEN_S):
            stream, host = await _connect(target)
            return await _upgrade(stream, host, whole, headers)
    except WebSocketRefused as exc:
        raise _problem(exc) from exc
    except trio.TooSlowError as exc:
        raise ApiError("unreachable", f"{where} did not answer in {OPEN_S:.0f} s") from exc
    except (OSError, WebSocketLost, trio.BrokenResourceError) as exc:
        said = getattr(exc, "strerror", None) or str(exc) or "it broke off"
        raise ApiError("unreachable", f"nothing answers at {where}: {said}") from exc


async def _upgrade(
    stream: trio.abc.Stream, host: str, target: str, headers: list[tuple[bytes, bytes]]
) -> MessageSocket:
    try:
        return await open_web_socket(stream, host, target, headers)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def _connect(target: Target) -> tuple[trio.abc.Stream, str]:
    if target.socket is not None:
        return await trio.open_unix_socket(str(target.socket)), "rackmesh"
    parts = urlsplit(target.url or "")
    host, port = parts.hostname or "", parts.port or HUB_PORT
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    if target.tls_sha256 is not None:  # checked below, before anything is sent
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    plain = await trio.open_tcp_stream(host, port)
    stream = trio.SSLStream(plain, context, server_hostname=host, https_compatible=True)
    try:
        await stream.do_handshake()
        shown = hashlib.sha256(stream.getpeercert(binary_form=True) or b"").hexdigest()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    wanted = (target.tls_sha256 or shown).lower().replace(":", "")
    if shown != wanted:
        await trio.aclose_forcefully(stream)
        sentence = f"{target.url} does not have the TLS fingerprint that was given"
        raise ApiError("denied", f"{sentence}; nothing was sent")
    name = f"[{host}]" if ":" in host else host
    return stream, f"{name}:{port}"


def _problem(refused: WebSocketRefused) -> ApiError:
    document: Any
    try:
        document = json.loads(refused.body)
    except (ValueError, RecursionError):
        document = None
    document = document if isinstance(document, dict) else {}
    detail = document.get("detail") or str(refused)
    return ApiError(str(document.get("code") or "failed"), str(detail), refused.status)
