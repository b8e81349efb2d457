"""HTTP of boot services that was once good: changed by a seed, it costs one connection at most.

The real listener with the real routes, on streams without a port. A file of no table, a
connection that fails by our own fault or an answer of 500 is what must never come.
"""

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.host import log as logging
from mesh.host.log import get_log
from node.boot.answers import AnswerRoutes
from node.boot.assets import AssetRoutes
from node.boot.files import BootFiles
from node.boot.http import HttpServer
from node.boot.media import MediaRoutes
from node.boot.ports import BootDecisions, Refusal
from node.boot.routes import BootRoutes
from tests.support.boot_node import Decisions as Same
from tests.support.boot_node import NoAssets
from tests.support.boot_site import MAC
from tests.support.http_wire import CLIENT_IP, said_to
from tests.support.mutations import mutations

COUNT = int(os.environ.get("RACKMESH_MUTATIONS", "12500"))
INITRD, SECRET = bytes(range(256)) * 8, b"nobody may read this"
CAP = "AAAA" * 19
ANSWER_BYTES_MAX = len(INITRD) + 1024
"""Of one answer: the longest file and a head."""


class Decisions(Same):
    """Refuses every capability, as all that are made up are."""

    async def media(self, *_asked: object) -> Refusal:
        return Refusal("this is not a boot capability")

    async def answers(self, *_asked: object) -> Refusal:
        return Refusal("this is not a boot capability")


@pytest.fixture
def server(tmp_path: Path) -> HttpServer:
    served = tmp_path / "served"
    served.mkdir()
    (served / "initrd").write_bytes(INITRD)
    (tmp_path / "secret").write_bytes(SECRET)
    log, decisions = get_log("http"), cast(BootDecisions, Decisions())
    assets = AssetRoutes(NoAssets())
    rooms: Any = (
        BootRoutes(
            lambda mac, ip: (mac, ip) == (MAC, CLIENT_IP), decisions,
            BootFiles(served, {"undionly.kpxe": b"loader"}), lambda: ["http://10.77.0.1"], log,
        ),
        assets, MediaRoutes(decisions, assets), AnswerRoutes(decisions, log),
    )  # fmt: skip
    return HttpServer([route for room in rooms for route in room.routes()], log)


def asks(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: n", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


FILE = "/boot/v1/file/initrd"
CORPUS = [
    asks("GET", FILE),
    asks("HEAD", FILE) + asks("GET", FILE, "Range: bytes=100-199", 'If-Range: "x"'),
    asks("GET", FILE, "Range: bytes=-5", "If-None-Match: *"),
    asks("GET", FILE, "Range: bytes=0-9,20-29", "Connection: close"),
    asks("GET", "/boot/v1/file/../../secret"),
    asks("GET", "/boot/v1/file/..%2f..%2fsecret"),
    asks("GET", f"/boot/v1/script?mac={MAC.replace(':', '%3A')}"),
    asks("GET", "http://n/boot/v1/script"),
    asks("POST", "/agent/v1/hello", "Content-Type: application/json", body=b'{"v":1}'),
    asks("POST", f"/phone/v1/{CAP}", "Expect: 100-continue", body=b"hostname=x&a=%20"),
    asks("POST", f"/phone/v1/{CAP}", "Transfer-Encoding: chunked") + b"3\r\na=b\r\n0\r\n\r\n",
    asks("GET", f"/media/v1/{'0' * 64}?cap={CAP}", "Range: bytes=0-2047"),
    asks("GET", f"/answers/v1/{CAP}/preseed.cfg"),
    asks("GET", f"/assets/b3:{'0' * 64}/manifest"),
    asks("CONNECT", "n:80") + asks("OPTIONS", "*", "Upgrade: h2c", "Connection: upgrade"),
]


@contextmanager
def logged() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logging.configure("debug", stream)
    try:
        yield stream
    finally:
        logging.configure()


def looked_at(server: HttpServer, data: bytes, answer: bytes) -> None:
    assert not server.counts["failed_connections"]
    assert not server.counts["answers_5xx"]
    assert SECRET not in answer
    count = answer.count(b"HTTP/1.1 ")
    assert len(answer) <= (count + 1) * ANSWER_BYTES_MAX
    assert count <= data.count(b"\n") + 1
    assert not server.statistics()["connections"]


def test_changed_requests_cost_one_connection_at_most(server: HttpServer):
    async def main() -> None:
        for number, data in enumerate(mutations(CORPUS, 18, COUNT)):
            try:
                looked_at(server, data, await said_to(server, data))
            except Exception as exc:
                raise AssertionError(f"mutation {number}: {data.hex()}") from exc

    with logged() as stream:
        trio.run(main)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert all(str(value).isprintable() for line in lines for value in line.values())
    assert server.counts["answers_2xx"] > COUNT // 10, "most still reach a route"
    assert server.counts["malformed_requests"] > COUNT // 100


heads = st.lists(
    st.sampled_from([
        "Range: bytes=0-", "Range: bytes=-" + "9" * 5000, "Range: bytes=5-1", "Expect: x",
        "Content-Length: 0", "Content-Length: " + "9" * 20, "Content-Length: " + "9" * 5000,
        "Content-Length: -1", "Content-Length: \u00b2", "Transfer-Encoding: chunked, gzip",
        "Host: b", "Connection: upgrade", "Upgrade: websocket", "If-None-Match: W/*,,,",
        "If-Range: \u00ff", "Content-Type: application/json", " folded", "X" * 300 + ": 1",
    ])
    | st.text(st.characters(codec="latin-1"), max_size=30),
    max_size=6,
)  # fmt: skip
methods = st.sampled_from(["GET", "HEAD", "POST", "get", "head", "CONNECT", "PUT", "G\u00c9T"])
paths = st.sampled_from([
    FILE, "/boot/v1/file/", "/boot/v1/file//initrd", "/boot/v1/script?mac=", "*", "//", "/%",
    "/agent/v1/", f"/phone/v1/{CAP}", "/media/v1/x?cap=", "/answers/v1/a/b", "/assets/",
    "/assets/b3:" + "0" * 64, "http://[", "/?" + "a&" * 200, "/" + "\u00ff" * 40,
])  # fmt: skip


@settings(
    max_examples=2000, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(said=st.lists(st.tuples(methods, paths, heads, st.binary(max_size=9)), max_size=3))
def test_any_requests_cost_one_connection_at_most(server: HttpServer, said):
    data = b"".join(
        "\r\n".join([f"{method} {path} HTTP/1.1", "Host: n", *head, "", ""]).encode("latin-1")
        + body
        for method, path, head, body in said
    )

    async def main() -> None:
        looked_at(server, data, await said_to(server, data))

    with logged():
        trio.run(main)
