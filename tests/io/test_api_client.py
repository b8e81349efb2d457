"""The API client against TLS servers: the right, a wrong and an unknown certificate."""

import hashlib
import ssl
from pathlib import Path

import pytest
import trio

from mesh.host.clock import SystemClock
from mesh.link.certificate import make_certificate
from mesh.rest.client import ApiClient, ApiError, Target

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{"a": 1}\n'


async def serve(
    folder: Path, seen: list[bytes], *, task_status: trio.TaskStatus[tuple[str, str]]
) -> None:
    key, certificate = make_certificate(["127.0.0.1"], SystemClock().now_ms())
    (folder / "tls.key").write_bytes(key)
    (folder / "tls.crt").write_bytes(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    der = ssl.PEM_cert_to_DER_cert(certificate.decode())

    async def answer(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            seen.append(await stream.receive_some(65536))
            await stream.send_all(ANSWER)
            await stream.aclose()
        except (trio.BrokenResourceError, ssl.SSLError):
            return

    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
    port = listeners[0].transport_listener.socket.getsockname()[1]
    task_status.started((f"https://127.0.0.1:{port}", hashlib.sha256(der).hexdigest()))
    await trio.serve_listeners(answer, listeners)


def ask(url: str, tls_sha256: str | None) -> object:
    client = ApiClient(Target(url=url, token="canary", tls_sha256=tls_sha256))
    try:
        return client.get("/status")
    finally:
        client.close()


async def test_only_the_given_fingerprint_gets_the_token(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    seen: list[bytes] = []
    url, right = await nursery.start(serve, tmp_path, seen)
    assert await trio.to_thread.run_sync(ask, url, right) == {"a": 1}
    spelled = ":".join(right[i : i + 2] for i in range(0, 64, 2)).upper()
    assert await trio.to_thread.run_sync(ask, url, spelled) == {"a": 1}
    assert len(seen) == 2 and b"Bearer canary" in seen[0]
    with pytest.raises(ApiError, match="does not have the TLS fingerprint") as caught:
        await trio.to_thread.run_sync(ask, url, "00" * 32)
    assert caught.value.code == "denied"
    with pytest.raises(ApiError):
        await trio.to_thread.run_sync(ask, url, None)
    assert len([data for data in seen if data]) == 2
