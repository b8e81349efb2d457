"""Whom a newcomer asks, and how long, when the hubs of its token do not answer."""

from types import SimpleNamespace
from typing import Any

import pytest
import trio

from mesh import joining
from mesh.errors import Unreachable
from mesh.joining import PATIENCE_S, join_by_token

TOKEN: Any = SimpleNamespace(urls=["https://one", "https://two"])
NEWCOMER: Any = SimpleNamespace(key_record=None, kem_private=b"")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the hubs that were asked, in their order."""
    monkeypatch.setattr(joining, "JoinClient", lambda *_: None)
    return []


def answering(monkeypatch: pytest.MonkeyPatch, asked: list[str], *answers: Any) -> None:
    """Let the hubs give these answers, the last one for ever."""

    async def join(url: str, _client: object, _key: bytes) -> Any:
        await trio.lowlevel.checkpoint()
        answer = answers[min(len(asked), len(answers) - 1)]
        asked.append(url)
        if isinstance(answer, BaseException):
            raise Unreachable(f"no connection to {url}") from answer
        return answer

    monkeypatch.setattr(joining, "join_over_websocket", join)


async def test_hubs_that_have_much_to_do_are_asked_again(monkeypatch, asked, autojump_clock):
    answering(monkeypatch, asked, trio.TooSlowError(), trio.BrokenResourceError(), "granted")
    assert await join_by_token(TOKEN, NEWCOMER, "n") == "granted"
    assert asked == ["https://one", "https://two", "https://one"]


async def test_hubs_that_refuse_connections_are_asked_once(monkeypatch, asked):
    lone = OSError("all attempts failed")
    lone.__cause__ = ExceptionGroup(
        "each", [ConnectionRefusedError(), ConnectionRefusedError()]
    )
    answering(monkeypatch, asked, lone, ConnectionRefusedError())
    with pytest.raises(Unreachable, match="is it up"):
        await join_by_token(TOKEN, NEWCOMER, "n")
    assert asked == TOKEN.urls


async def test_nobody_waits_for_ever(monkeypatch, asked, autojump_clock):
    answering(monkeypatch, asked, trio.TooSlowError())
    began = trio.current_time()
    with pytest.raises(Unreachable, match="no connection to https://one"):
        await join_by_token(TOKEN, NEWCOMER, "n")
    assert PATIENCE_S < trio.current_time() - began < PATIENCE_S + 10
