"""The contract of virtual media, against BMCs of different make and such as lie."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from drivers.api import BmcCredentials, BmcLimits, open_bmc
from drivers.errors import DeviceLied, DeviceRefused
from tests.io.test_bmc_contract import Target, rack
from tests.support.hostile_bmc import SYSTEM, Behaviour, answer, hostile_bmc, plausible, system
from tests.support.redfish_emulator import PASSWORD, need_emulator, redfish_emulator
from tests.support.sim_content import sim_iso

QUICK = BmcLimits(request_s=2, boot_wait_s=0.5, media_wait_s=0.5, poll_s=0.05)
WHO = BmcCredentials(username="admin", password="pw")
DRIVES = f"{SYSTEM}/VirtualMedia"
SECRET = "c2VjcmV0LWNhcGFiaWxpdHktb2Ytb25lLW1hY2hpbmU.iso"


@dataclass
class Origin:
    """An HTTP server with one small ISO."""

    url: str = ""
    asked: list[str] = field(default_factory=list)

    async def serve(self, stream: trio.SocketStream) -> None:
        iso = sim_iso(name="media")
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                part = await stream.receive_some(4096)
                if not part:
                    return
                head += part
            line = head.split(b"\r\n")[0].decode()
            self.asked.append(line)
            if SECRET not in line:
                await stream.send_all(b"HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n")
                return
            status, extra = "200 OK", ""
            for one in head.decode().lower().split("\r\n"):
                if one.startswith("range: bytes="):
                    first, last = one.partition("=")[2].split("-")
                    total = len(iso)
                    iso = iso[int(first) : int(last) + 1]
                    status = "206 Partial"
                    extra = f"Content-Range: bytes {first}-{last}/{total}\r\n"
            text = f"HTTP/1.1 {status}\r\n{extra}Content-Length: {len(iso)}\r\n"
            await stream.send_all(f"{text}Connection: close\r\n\r\n".encode())
            if not line.startswith("HEAD"):
                await stream.send_all(iso)


@asynccontextmanager
async def origin() -> AsyncGenerator[Origin]:
    found = Origin()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, found.serve, [listener])
        found.url = f"http://127.0.0.1:{port}/boot/v1/media/{SECRET}"
        yield found
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def emulator(folder: Path) -> AsyncGenerator[Target]:
    need_emulator()
    async with redfish_emulator(folder, fake=True) as url:
        yield Target(url, "admin", PASSWORD)


REDFISH = {"rack": rack, "emulator": emulator}


@pytest.fixture(params=REDFISH)
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Target]:
    with trio.fail_after(60):
        async with REDFISH[request.param](tmp_path) as found:
            yield found


async def test_a_disc_is_read_from_its_url_shown_and_ejected(target: Target) -> None:
    async with origin() as iso, target.open() as bmc:
        assert await bmc.inserted_medium() is None
        await bmc.eject_medium()
        for url in (iso.url, iso.url, f"{iso.url}?again"):
            await bmc.insert_medium(url)
            shown = await bmc.inserted_medium()
            assert shown is not None
            assert shown in (url, "", url.rpartition("/")[2])
        assert iso.asked, "the BMC fetches it itself"
        await bmc.set_boot("cd")
        assert await bmc.boot_device() == "cd"
        async with target.open() as other:
            assert await other.inserted_medium() is not None
            await other.eject_medium()
        assert await bmc.inserted_medium() is None


async def test_what_cannot_be_fetched_is_refused_and_the_url_not_repeated(
    target: Target,
) -> None:
    async with origin() as iso, target.open() as bmc:
        revoked = iso.url.replace("c2Vj", "cmV2")
        with pytest.raises(DeviceRefused, match="InsertMedia") as caught:
            await bmc.insert_medium(revoked)
        assert revoked.rpartition("/")[2][:12] not in str(caught.value)
        assert await bmc.inserted_medium() is None


@dataclass
class Drive:
    """A service with one drive, its body changed by what it was sent, or not."""

    body: dict[str, Any]
    believes: bool = True
    orders: list[tuple[str, str, Any]] = field(default_factory=list)
    refuse: int = 0

    def behaviour(self) -> Behaviour:
        def behave(method: str, path: str, body: bytes) -> bytes:
            if method in ("POST", "PATCH") and path.startswith(DRIVES):
                asked = json.loads(body or b"{}")
                self.orders.append((method, path, asked))
                if self.refuse:
                    return answer(self.refuse, {"error": {"message": f"no {body.decode()}"}})
                if self.believes:
                    self.body |= {"Image": asked.get("Image"), "Inserted": "Image" in asked}
                    self.body["ConnectedVia"] = "URI" if asked.get("Image") else "NotConnected"
                    self.body["Inserted"] = bool(asked.get("Image"))
                return answer(204, b"")
            if path == SYSTEM and method == "GET":
                return answer(200, system(VirtualMedia={"@odata.id": DRIVES}))
            if path == DRIVES:
                members = [{"@odata.id": f"{DRIVES}/{name}"} for name in ("Floppy", "Cd")]
                return answer(200, {"Members": members})
            if path == f"{DRIVES}/Floppy":
                return answer(200, {"MediaTypes": ["Floppy"], "Inserted": False})
            if path == f"{DRIVES}/Cd":
                return answer(200, self.body)
            return plausible(method, path, body)

        return behave


def drive(**more: Any) -> dict[str, Any]:
    return {"MediaTypes": ["CD"], "Image": None, "Inserted": False, **more}


URL = f"http://10.0.0.1:8470/boot/v1/media/{SECRET}"


async def test_without_actions_the_drive_itself_is_patched() -> None:
    seen = Drive(drive())
    async with hostile_bmc(seen.behaviour()) as service:
        async with open_bmc(service.url + SYSTEM, WHO, limits=QUICK) as bmc:
            await bmc.insert_medium(URL)
            assert await bmc.inserted_medium() == URL
            await bmc.eject_medium()
    assert [order[:2] for order in seen.orders] == [("PATCH", f"{DRIVES}/Cd")] * 2


async def test_a_drive_that_says_yes_and_stays_empty_is_a_lie() -> None:
    seen = Drive(drive(), believes=False)
    async with hostile_bmc(seen.behaviour()) as service:
        async with open_bmc(service.url + SYSTEM, WHO, limits=QUICK) as bmc:
            with pytest.raises(DeviceLied, match="shows it not") as caught:
                await bmc.insert_medium(URL)
    assert SECRET not in str(caught.value)


async def test_a_drive_that_keeps_its_disc_is_a_lie() -> None:
    seen = Drive(drive(Image="http://x/y.iso", Inserted=True), believes=False)
    async with hostile_bmc(seen.behaviour()) as service:
        async with open_bmc(service.url + SYSTEM, WHO, limits=QUICK) as bmc:
            with pytest.raises(DeviceLied, match="keeps its disc"):
                await bmc.eject_medium()


async def test_a_refusal_that_repeats_the_url_is_cut() -> None:
    seen = Drive(drive(), refuse=403)
    async with hostile_bmc(seen.behaviour()) as service:
        async with open_bmc(service.url + SYSTEM, WHO, limits=QUICK) as bmc:
            with pytest.raises(DeviceRefused, match="status 403") as caught:
                await bmc.insert_medium(URL)
    assert SECRET[:12] not in str(caught.value)


async def test_supermicro_is_empty_when_not_connected_whatever_image_it_shows() -> None:
    kept = drive(Image="http://x/old.iso", Inserted=True, ConnectedVia="NotConnected")
    seen = Drive(kept)

    def behave(method: str, path: str, body: bytes) -> bytes:
        if path == SYSTEM and method == "GET":
            made = system(Manufacturer="Supermicro", VirtualMedia={"@odata.id": DRIVES})
            return answer(200, made)
        return seen.behaviour()(method, path, body)

    async with hostile_bmc(behave) as service:
        async with open_bmc(service.url + SYSTEM, WHO, limits=QUICK) as bmc:
            assert await bmc.inserted_medium() is None
            await bmc.eject_medium()
            assert not seen.orders
            await bmc.insert_medium(URL)
            assert await bmc.inserted_medium() == URL


async def test_drives_of_a_manager_are_found_and_none_at_all_is_one_sentence() -> None:
    seen = Drive(drive())
    manager = "/redfish/v1/Managers/1"
    links: dict[str, Any] = {"Links": {"ManagedBy": [{"@odata.id": manager}]}}

    def behave(method: str, path: str, body: bytes) -> bytes:
        if path == SYSTEM and method == "GET":
            return answer(200, system(**links))
        if path == manager:
            return answer(200, {"VirtualMedia": {"@odata.id": DRIVES}})
        return seen.behaviour()(method, path, body)

    async with hostile_bmc(behave) as service:
        async with open_bmc(service.url + SYSTEM, WHO, limits=QUICK) as bmc:
            assert await bmc.inserted_medium() is None
        links.clear()
        async with open_bmc(service.url + SYSTEM, WHO, limits=QUICK) as bmc:
            with pytest.raises(DeviceRefused, match="no virtual CD drive"):
                await bmc.insert_medium(URL)


@pytest.mark.parametrize(
    "body",
    [
        b"null", b"[]", b"{}", b"\xff", b'{"MediaTypes": 7, "Inserted": "yes", "Image": 5}',
        b'{"MediaTypes": ["CD"], "Actions": {"#VirtualMedia.InsertMedia": {"target": "//x"}}}',
    ],
)  # fmt: skip
async def test_nonsense_is_one_sentence_or_an_empty_drive(body: bytes) -> None:
    def behave(method: str, path: str, sent: bytes) -> bytes:
        if path == SYSTEM and method == "GET":
            return answer(200, system(VirtualMedia={"@odata.id": DRIVES}))
        if path.startswith(DRIVES):
            members = {"Members": [{"@odata.id": f"{DRIVES}/Cd"}]}
            return answer(200, members if path == DRIVES else body)
        return plausible(method, path, sent)

    async with hostile_bmc(behave) as service:
        async with open_bmc(service.url + SYSTEM, WHO, limits=QUICK) as bmc:
            try:
                assert await bmc.inserted_medium() is None
            except DeviceLied as exc:
                assert "\n" not in str(exc)  # noqa: PT017


async def test_ipmi_says_that_it_has_none() -> None:
    async with open_bmc("ipmi://127.0.0.1", WHO, limits=QUICK) as bmc:
        for verb in (bmc.insert_medium(URL), bmc.eject_medium(), bmc.inserted_medium()):
            with pytest.raises(DeviceRefused, match="no virtual media"):
                await verb
