"""The route of installers' answers: whom it asks, what it refuses, what the log shows."""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import trio

from mesh.host.log import get_log
from node.boot.answers import AnswerRoutes
from node.boot.http import HttpServer, listen_socket
from node.boot.ports import BootDecisions, Refusal

SECRET_CAP = "AAAAcapability"


@dataclass
class Decisions:
    """Gives a text once."""

    asked: list[tuple[str, str, str]] = field(default_factory=list)

    async def answers(self, capability: str, name: str, client_ip: str) -> str | Refusal:
        await trio.lowlevel.checkpoint()
        if capability != SECRET_CAP:
            return Refusal("the capability is of another machine")
        self.asked.append((capability, name, client_ip))
        if len(self.asked) > 1:
            return Refusal("the answers for web went out once; retry the job", 410)
        return "host web\n"


async def talk(port: int, method: str, path: str) -> str:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        await stream.send_all(head.encode())
        return b"".join([piece async for piece in stream]).decode()


@pytest.mark.parametrize(
    "path",
    [f"/answers/v1/{SECRET_CAP}/preseed.cfg", f"/answers/v1/preseed.cfg?cap={SECRET_CAP}"],
)
async def test_a_text_goes_out_and_the_second_time_410(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    decisions = Decisions()
    log = get_log("http")
    server = HttpServer(AnswerRoutes(cast(BootDecisions, decisions), log).routes(), log)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            port: Any = await nursery.start(server.run, listen_socket("127.0.0.1", 0))
            for method in ("HEAD", "POST"):
                said = await talk(port, method, path)
                assert said.startswith("HTTP/1.1 405")
            assert decisions.asked == [], "only a GET uses the text up"
            for wrong in ("/answers/v1/", "/answers/v1/x", "/answers/v1/x/",
                          f"/answers/v1/x/{'y' * 2000}"):  # fmt: skip
                assert (await talk(port, "GET", wrong))[9:12] == "404"
            assert (await talk(port, "GET", "/answers/v1/wrong/preseed.cfg"))[9:12] == "403"
            first = await talk(port, "GET", path)
            assert first.startswith("HTTP/1.1 200")
            assert "no-store" in first
            assert first.endswith("host web\n")
            second = await talk(port, "GET", path)
            assert second.startswith("HTTP/1.1 410")
            assert "went out once; retry the job" in second
            assert decisions.asked == [(SECRET_CAP, "preseed.cfg", "127.0.0.1")] * 2
            nursery.cancel_scope.cancel()
    logged = capsys.readouterr()
    assert SECRET_CAP not in logged.out + logged.err


@pytest.mark.parametrize("path", ["/nothing", "/answers/v1/x"])
async def test_a_head_of_what_is_no_file_gets_headers_and_ends_nothing(path: str) -> None:
    log = get_log("http")
    server = HttpServer(AnswerRoutes(cast(BootDecisions, Decisions()), log).routes(), log)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            port: Any = await nursery.start(server.run, listen_socket("127.0.0.1", 0))
            for _ in range(2):
                said = await talk(port, "HEAD", path)
                assert said.startswith("HTTP/1.1 40")
                assert said.endswith("\r\n\r\n")
            nursery.cancel_scope.cancel()
