"""The conditional request against a real HTTP origin; its log is the truth."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h11
import pytest
import trio

from cache.errors import OriginError
from cache.proto.revalidation import Checked, Seen
from cache.revalidation import check_origin

DAY = "Mon, 23 Nov 2026 12:00:00 GMT"


@dataclass
class Answering:
    """Answers with ``status`` by method (None: not at all) and ``headers``; no body."""

    status: dict[str, int | None]
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    url: str = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        while not isinstance(event := connection.next_event(), h11.Request):
            if event is not h11.NEED_DATA:
                return
            connection.receive_data(await stream.receive_some(65536))
        got = {name.decode(): value.decode() for name, value in event.headers}
        method = event.method.decode()
        self.asked.append((method, got.get("if-none-match"), got.get("if-modified-since")))
        status = self.status[method]
        if status is None:
            await trio.sleep_forever()
        assert status is not None
        headers = [*self.headers.items(), ("Connection", "close")]
        data = connection.send(h11.Response(status_code=status, headers=headers))
        assert data is not None
        await stream.send_all(data)
        await stream.aclose()


@asynccontextmanager
async def origin(answering: Answering) -> AsyncGenerator[Answering]:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        answering.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/image"
        nursery.start_soon(trio.serve_listeners, answering.serve, [listener])
        yield answering
        nursery.cancel_scope.cancel()


async def test_a_tag_that_still_holds_costs_one_request_without_a_body() -> None:
    async with origin(Answering({"HEAD": 304})) as there:
        assert await check_origin(there.url, Seen('"a"')) == Checked(False, Seen('"a"'))
    assert there.asked == [("HEAD", '"a"', None)]


async def test_an_origin_with_dates_only_is_asked_by_date() -> None:
    async with origin(Answering({"HEAD": 304})) as there:
        assert not (await check_origin(there.url, Seen(None, DAY))).changed
    assert there.asked == [("HEAD", None, DAY)]


async def test_a_new_tag_is_other_content() -> None:
    headers = {"ETag": '"b"', "Content-Length": "9"}
    async with origin(Answering({"HEAD": 200}, headers)) as there:
        checked = await check_origin(there.url, Seen('"a"', None, 9))
    assert checked == Checked(True, Seen('"b"', None, 9))


async def test_without_validators_only_another_size_is_other_content() -> None:
    async with origin(Answering({"HEAD": 200}, {"Content-Length": "9"})) as there:
        assert not (await check_origin(there.url, Seen(None, None, 9))).changed
        assert (await check_origin(there.url, Seen(None, None, 8))).changed


async def test_an_origin_without_head_is_asked_with_get_and_its_body_left() -> None:
    headers = {"ETag": '"b"', "Content-Length": str(1 << 40)}
    async with origin(Answering({"HEAD": 405, "GET": 200}, headers)) as there:
        assert (await check_origin(there.url, Seen('"a"'))).changed
    assert [method for method, _, _ in there.asked] == ["HEAD", "GET"]


async def test_an_origin_in_trouble_is_one_sentence() -> None:
    async with origin(Answering({"HEAD": 500})) as there:
        with pytest.raises(OriginError, match="answered 500"):
            await check_origin(there.url, Seen('"a"'))


async def test_an_origin_that_does_not_answer_is_one_sentence() -> None:
    async with origin(Answering({"HEAD": None})) as there:
        with pytest.raises(OriginError, match=r"image.*(did not answer|Timeout)"):
            await check_origin(there.url, Seen('"a"'), check_s=0.3)
    with pytest.raises(OriginError, match="Connect"):
        await check_origin(there.url, Seen('"a"'))
