"""What IPMI's UDP brings: silence, loss, garbage, hung BMCs; each ends in time and in words."""

import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path as Folder

import pytest
import trio
from trio.socket import AF_INET, SOCK_DGRAM

import drivers.ipmi
from drivers.api import Bmc, BmcCredentials, BmcLimits, open_bmc
from drivers.errors import DeviceLied, DeviceRefused, DeviceUnreachable, DriverError
from drivers.ipmi import open_ipmi
from drivers.proto import ipmi as core
from tests.support import ipmi_sim as sim
from tests.support.udp_proxy import Path, bad_path

QUICK = BmcLimits(request_s=1, power_wait_s=1, boot_wait_s=1, poll_s=0.1)
PATIENT = BmcLimits(request_s=20, power_wait_s=20, boot_wait_s=20, poll_s=0.1)
WHO = BmcCredentials(username=sim.USERNAME, password=sim.PASSWORD)
VERBS: tuple[Callable[[Bmc], Awaitable[object]], ...] = (
    lambda bmc: bmc.power_state(),
    lambda bmc: bmc.set_power(True),
    lambda bmc: bmc.set_boot("network"),
)


@asynccontextmanager
async def responder(answer: Callable[[bytes], list[bytes]]) -> AsyncGenerator[int]:
    """Answer every datagram on a port of loopback by a function."""
    with trio.socket.socket(AF_INET, SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))

        async def serve() -> None:
            while True:
                data, peer = await sock.recvfrom(4000)
                for reply in answer(data):
                    await sock.sendto(reply, peer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield sock.getsockname()[1]
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def simulator(tmp_path: Folder, chassis: str = sim.CHASSIS) -> AsyncGenerator[int]:
    sim.need_ipmi_sim()
    async with sim.ipmi_sim(tmp_path / "sim", chassis) as port:
        yield port


def sentence(error: DriverError) -> str:
    text = str(error)
    assert sim.PASSWORD not in text
    assert "\n" not in text
    assert 20 < len(text) < 400
    assert text.startswith("ipmi://")
    return text


def capabilities(request: bytes, data: bytes) -> bytes:
    """Answer Get Channel Authentication Capabilities outside a session (IPMI 1.5 framing)."""
    rq_seq = request[14 + 4]
    body = bytes([0x81, 0x07 << 2, 0, 0x20, rq_seq, 0x38]) + data + b"\0"
    return bytes.fromhex("0600ff07 00 00000000 00000000") + bytes([len(body)]) + body


SAYS_IPMI_2 = bytes.fromhex("00 01 80 04 02 000000 00")
SAYS_IPMI_15 = bytes.fromhex("00 01 04 04 00 000000 00")
OPEN_REFUSED = {"no slot": 0x01, "no suite": 0x11, "unknown code": 0x77}


def opens_with(status: int) -> Callable[[bytes], list[bytes]]:
    def answer(data: bytes) -> list[bytes]:
        if data[4] != 6:
            return [capabilities(data, SAYS_IPMI_2)]
        tag, console = data[16], data[20:24]
        body = bytes([tag, status, 0, 0]) + console
        head = bytes.fromhex("0600ff07 06 11 00000000 00000000")
        return [head + len(body).to_bytes(2, "little") + body]

    return answer


BAD: dict[str, tuple[Callable[[bytes], list[bytes]], type[DriverError], str]] = {
    "silence": (lambda _: [], DeviceUnreachable, "no answer within 1 s"),
    "empty": (lambda _: [b""], DeviceUnreachable, "no answer within"),
    "a header alone": (lambda _: [b"\x06\0\xff\x07"] * 20, DeviceUnreachable, "no answer"),
    "an echo": (lambda data: [data], DeviceUnreachable, "no answer within"),
    "long garbage": (lambda _: [b"\xff" * 3500], DeviceUnreachable, "no answer within"),
    "zeros in RMCP+": (
        lambda _: [b"\x06\0\xff\x07\x06" + bytes([kind]) + bytes(60) for kind in range(64)],
        DeviceUnreachable,
        "no answer within",
    ),
    "short capabilities": (lambda data: [capabilities(data, b"\0")], DeviceUnreachable, "no"),
    "IPMI 1.5": (
        lambda data: [capabilities(data, SAYS_IPMI_15)],
        DeviceRefused,
        "speaks only IPMI 1.5",
    ),
    "no slot": (opens_with(0x01), DeviceUnreachable, "no free session"),
    "no suite": (opens_with(0x11), DeviceRefused, "No Cipher suite match"),
    "unknown code": (opens_with(0x77), DeviceRefused, "login was refused"),
    "nothing after the open": (opens_with(0x00), DeviceUnreachable, "no answer within"),
}


@pytest.mark.parametrize("name", BAD)
async def test_each_misdeed_gives_one_clear_sentence_in_time(name: str) -> None:
    behaviour, kind, words = BAD[name]

    async def one(port: int, verb: Callable[[Bmc], Awaitable[object]]) -> None:
        async with open_bmc(f"ipmi://127.0.0.1:{port}", WHO, limits=QUICK) as bmc:
            with trio.fail_after(5), pytest.raises(kind) as caught:
                await verb(bmc)
        assert words in sentence(caught.value)

    async with responder(behaviour) as port, trio.open_nursery() as nursery:
        for verb in VERBS:
            nursery.start_soon(one, port, verb)


async def test_a_closed_port_is_told_from_silence_at_once() -> None:
    port = sim.free_port()
    async with open_bmc(f"ipmi://127.0.0.1:{port}", WHO, limits=PATIENT) as bmc:
        with trio.fail_after(5), pytest.raises(DeviceUnreachable, match="nothing answers"):
            await bmc.power_state()


async def test_a_name_that_does_not_resolve_is_said() -> None:
    async with open_bmc("ipmi://no-such-host.invalid", WHO, limits=QUICK) as bmc:
        with trio.fail_after(8), pytest.raises(DeviceUnreachable, match="cannot be resolved"):
            await bmc.power_state()


async def test_it_dials_from_the_address_that_it_was_given(tmp_path: Folder) -> None:
    seen: list[str] = []
    with trio.socket.socket(AF_INET, SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        url = f"ipmi://127.0.0.1:{sock.getsockname()[1]}"
        async with open_bmc(url, WHO, limits=QUICK, local_address="127.0.0.77") as bmc:
            with pytest.raises(DeviceUnreachable):
                await bmc.power_state()
        seen.append((await sock.recvfrom(4000))[1][0])
    assert seen == ["127.0.0.77"]


async def test_an_address_that_is_not_ours_cannot_be_dialled_from() -> None:
    url = "ipmi://127.0.0.1:623"
    async with open_bmc(url, WHO, limits=QUICK, local_address="192.0.2.1") as bmc:
        with pytest.raises(DeviceUnreachable, match=r"from 192\.0\.2\.1"):
            await bmc.power_state()


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ({"username": "a", "password": "p" * 21}, "at most 20"),
        ({"username": "u" * 17, "password": "p"}, "at most 16"),
        ({"username": "a", "password": "b", "tls_sha256": "0" * 64}, "no certificate"),
    ],
)
async def test_a_secret_that_ipmi_cannot_use_is_refused_before_anything_is_sent(
    secret: dict[str, object], words: str
) -> None:
    with pytest.raises(DeviceRefused, match=words) as caught:
        async with open_bmc("ipmi://127.0.0.1", secret):
            raise AssertionError("must not open")
    assert "pppp" not in str(caught.value)


async def test_wrong_user_and_wrong_password_are_told_apart(tmp_path: Folder) -> None:
    async with simulator(tmp_path) as port:
        url = f"ipmi://127.0.0.1:{port}"
        for who, words in (
            (BmcCredentials(username="ADMIN", password="wrong"), "password was refused"),
            (BmcCredentials(username="nobody", password=sim.PASSWORD), "user name was refused"),
        ):
            async with open_bmc(url, who, limits=PATIENT) as bmc:
                with trio.fail_after(10), pytest.raises(DeviceRefused, match=words):
                    await bmc.power_state()


async def test_logging_in_again_and_again_leaves_no_session_behind(tmp_path: Folder) -> None:
    """A BMC has few sessions; ipmi_sim has 63 and refuses the next."""
    async with simulator(tmp_path) as port:
        for _ in range(80):
            async with open_bmc(f"ipmi://127.0.0.1:{port}", WHO, limits=PATIENT) as bmc:
                assert await bmc.power_state() == "off"


def in_session(data: bytes) -> bool:
    """Only what is signed may be changed: a forged handshake is a refusal like a true one."""
    return len(data) > 5 and data[4] == 6 and data[5] & 0xC0 == 0xC0


@pytest.mark.parametrize("seed", [1, 2])
async def test_orders_get_through_loss_doubles_delay_and_garbage_with_seed(
    tmp_path: Folder, seed: int
) -> None:
    path = Path(lost=0.08, doubled=0.2, late=0.1, garbage=0.3, may_change=in_session, seed=seed)
    async with simulator(tmp_path) as port, bad_path(port, path):
        with trio.fail_after(60):
            async with open_bmc(f"ipmi://127.0.0.1:{path.port}", WHO, limits=PATIENT) as bmc:
                for on in (True, False):
                    await bmc.set_power(on)
                    await bmc.set_boot("network" if on else "disk")
                assert await bmc.power_state() == "off"
                assert await bmc.boot_device() == "disk"
    assert set(path.counts) >= {"doubled", "late", "garbage"}


DEAF = sim.CHASSIS.replace('do echo "$2" >"$1"; shift 2; done', "do shift 2; done")


async def test_power_and_boot_that_are_accepted_but_not_done_are_lies(tmp_path: Folder) -> None:
    doubting = BmcLimits(request_s=20, power_wait_s=1, boot_wait_s=1, poll_s=0.1)
    async with simulator(tmp_path, DEAF) as port:
        async with open_bmc(f"ipmi://127.0.0.1:{port}", WHO, limits=doubting) as bmc:
            with trio.fail_after(30), pytest.raises(DeviceLied, match="still 'off'"):
                await bmc.set_power(True)
            with trio.fail_after(30), pytest.raises(DeviceLied, match="boot from network"):
                await bmc.set_boot("network")


class Stuck:
    """A session whose calls do not come back before the test lets them."""

    let_go = threading.Event()
    left = threading.Semaphore(0)

    def __init__(self, sock: object, where: str) -> None:
        self.sock = sock

    def log_in(self, username: str, password: str, for_s: float) -> None:
        self.let_go.wait()
        self.left.release()

    def ask(self, command: core.Command, for_s: float) -> tuple[int, bytes]:
        raise AssertionError("never logged in")

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        self.sock.close()


@pytest.fixture
def short_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers.ipmi, "WATCHDOG_S", 0.2)
    monkeypatch.setattr(drivers.ipmi, "IPMI_THREADS", trio.CapacityLimiter(2))


async def test_a_call_that_does_not_come_back_is_given_up_and_threads_stay_bounded(
    short_watchdog: None, tmp_path: Folder
) -> None:
    limits = BmcLimits(request_s=0.3)
    stuck = partial(open_ipmi, "ipmi://127.0.0.1:9", WHO, limits=limits, session_factory=Stuck)
    before = threading.active_count()
    for words in ("did not come back in 0.5 s", "did not come back", "2 threads for IPMI"):
        async with stuck() as bmc:
            with trio.fail_after(3), pytest.raises(DeviceUnreachable, match=words):
                await bmc.power_state()
    assert threading.active_count() <= before + 3
    Stuck.let_go.set()
    for _ in range(2):
        assert await trio.to_thread.run_sync(Stuck.left.acquire, True, 5)
    with trio.fail_after(5):
        while drivers.ipmi.IPMI_THREADS.borrowed_tokens:
            await trio.sleep(0.01)


async def test_a_cancelled_call_lets_its_thread_and_its_socket_go_soon() -> None:
    async with responder(lambda _: []) as port:
        with trio.move_on_after(0.3) as scope:
            async with open_bmc(f"ipmi://127.0.0.1:{port}", WHO, limits=PATIENT) as bmc:
                await bmc.power_state()
        assert scope.cancelled_caught
        with trio.fail_after(2):
            while drivers.ipmi.IPMI_THREADS.borrowed_tokens:
                await trio.sleep(0.01)


async def test_hung_bmcs_do_not_hold_up_the_others_nor_the_event_loop(tmp_path: Folder) -> None:
    late_s = 0.0

    async def watch() -> None:
        nonlocal late_s
        while True:
            due = trio.current_time() + 0.02
            await trio.sleep_until(due)
            late_s = max(late_s, trio.current_time() - due)

    async def hang(port: int) -> None:
        async with open_bmc(f"ipmi://127.0.0.1:{port}", WHO, limits=PATIENT) as bmc:
            await bmc.power_state()

    async with simulator(tmp_path) as good, responder(lambda _: []) as mute:
        async with trio.open_nursery() as nursery:
            for _ in range(15):
                nursery.start_soon(hang, mute)
            nursery.start_soon(watch)
            with trio.fail_after(10):
                while drivers.ipmi.IPMI_THREADS.borrowed_tokens < 15:
                    await trio.sleep(0.01)
                async with open_bmc(f"ipmi://127.0.0.1:{good}", WHO, limits=PATIENT) as bmc:
                    started = trio.current_time()
                    for on in (True, False, True):
                        await bmc.set_power(on)
                    took_s = trio.current_time() - started
            nursery.cancel_scope.cancel()
    assert took_s < 10
    assert late_s < 1
