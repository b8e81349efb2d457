"""The ramdisk agent against a peer over loopback: its loop, its signatures, its fetching."""

import functools
from pathlib import Path

import pytest
import trio

from node.ramdisk.main import run_agent
from tests.support.agent_peer import AgentPeer, PeerAsset
from tests.support.fake_machine import MAC, FakeMachine, file_disk

MIB = 1 << 20
IMAGE = b"RACKMESH-SIM-IMAGE\n" + bytes(range(256)) * 4096 * 5
ASSET = PeerAsset.of(IMAGE)
FIRST = {"first": True}
LIMIT_S = 30


async def run(peer: AgentPeer, machine: FakeMachine, *, bad_urls=(), stop=lambda: False) -> str:
    """Run the agent in a thread against the peer on loopback; return how it ended."""
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(
                functools.partial(trio.serve_tcp, peer.serve, 0, host="127.0.0.1")
            )
            port = listeners[0].socket.getsockname()[1]
            url = f"http://127.0.0.1:{port}"
            for step in peer.plan:
                if step["do"] == "write_image":
                    step["urls"] = [*bad_urls, f"{url}/assets/{ASSET.asset}"]
            end = await trio.to_thread.run_sync(
                run_agent, machine, [*bad_urls, url], MAC, "cap", "127.0.0.1", stop
            )
            nursery.cancel_scope.cancel()
            return end
    raise AssertionError


def deploy_plan() -> list[dict]:
    return [
        {"do": "write_image", "disk": FIRST, "asset": ASSET.asset, "size": len(IMAGE)},
        {
            "do": "first_boot",
            "disk": FIRST,
            "image_bytes": len(IMAGE),
            "user_data": "#cloud-config\n",
            "meta_data": "{}",
        },
        {"do": "reboot"},
    ]


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(file_disk(tmp_path / "disk", 40 * MIB))


@pytest.fixture
def peer() -> AgentPeer:
    return AgentPeer(plan=deploy_plan(), assets={ASSET.asset: ASSET})


def disk_bytes(machine: FakeMachine) -> bytes:
    return Path(machine.disks()[0].path).read_bytes()


async def test_a_machine_is_deployed_and_restarts(peer, machine):
    assert await run(peer, machine) == "reboot"
    assert machine.ends == ["reboot"]
    assert [one["ok"] for one in peer.results] == [True, True, True]
    image, first_boot, _reboot = [one["evidence"] for one in peer.results]
    assert image["bytes"] == len(IMAGE)
    assert image["disk"] == "S1"
    assert first_boot == {"disk": "S1", "cidata": "raw", "offset": 32 * MIB}
    assert disk_bytes(machine).startswith(IMAGE)
    assert peer.hellos[0]["cap"] == "cap"
    assert peer.refused == []


async def test_a_lost_answer_is_asked_for_again_and_no_step_is_done_twice(peer, machine):
    peer.lose_answers = 2
    assert await run(peer, machine) == "reboot"
    assert [one["ok"] for one in peer.results] == [True, True, True]
    assert peer.refused == []


async def test_a_dead_node_is_passed_over_for_calls_and_for_chunks(peer, machine):
    sock = trio.socket.socket()
    await sock.bind(("127.0.0.1", 0))  # bound and not listening: refuses connections
    with sock:
        dead = f"http://127.0.0.1:{sock.getsockname()[1]}"
        assert await run(peer, machine, bad_urls=[dead]) == "reboot"
    assert disk_bytes(machine).startswith(IMAGE)


async def test_wrong_bytes_are_never_written(peer, machine):
    bad = PeerAsset(
        IMAGE, IMAGE[: 3 * MIB] + b"!" + IMAGE[3 * MIB + 1 :], ASSET.core, ASSET.asset
    )
    peer.assets = {ASSET.asset: bad}
    peer.plan[1:] = [{"do": "poweroff"}]
    assert await run(peer, machine) == "poweroff"
    result = peer.results[0]
    assert not result["ok"]
    assert "chunk 3 with wrong bytes" in result["error"]
    assert disk_bytes(machine)[: 4 * MIB] == IMAGE[: 3 * MIB] + bytes(MIB)


async def test_the_node_ends_a_step_by_abort(peer, machine):
    peer.abort_at = 0
    peer.plan = [{"do": "wipe", "disk": FIRST}, {"do": "poweroff"}]
    Path(machine.disks()[0].path).write_bytes(b"x" * 40 * MIB)
    plain_now = machine.now

    def hurried() -> float:
        machine.time += 1.0
        return plain_now()

    machine.now = hurried
    assert await run(peer, machine) == "poweroff"
    assert peer.results[0]["error"] == "ended by the node: the job was cancelled"


async def test_a_node_that_forgot_the_session_is_greeted_again_and_gets_the_report(
    peer, machine
):
    peer.forget_sessions_at = 1
    peer.plan = [{"do": "wipe", "disk": FIRST}, {"do": "poweroff"}]
    Path(machine.disks()[0].path).write_bytes(b"x" * 40 * MIB)
    plain_now = machine.now

    def hurried() -> float:
        machine.time += 1.0
        return plain_now()

    machine.now = hurried
    assert await run(peer, machine) == "poweroff"
    assert len(peer.hellos) == 2
    assert peer.results[0]["ok"]
    assert peer.results[0]["evidence"]["nonzero"] == 0
    assert max(one["done"] for one in peer.progress) <= 80 * MIB


async def test_work_that_no_job_wants_any_more_ends_after_a_minute(peer, machine):
    peer.forget_sessions_at = 1
    peer.plan = [{"do": "wipe", "disk": FIRST}, {"do": "poweroff"}]
    Path(machine.disks()[0].path).write_bytes(b"x" * 40 * MIB)
    plain_now = machine.now

    def hurried() -> float:
        machine.time += 10.0
        return plain_now()

    machine.now = hurried
    peer.unbound_hellos = frozenset({2, 3, 4})
    peer.idle_s = 86_400
    assert await run(peer, machine) == "poweroff"
    assert "no job wants this machine" in peer.results[0]["error"]


async def test_an_idle_machine_says_hello_again_and_switches_off(machine):
    peer = AgentPeer(bound=False, poll_s=60.0, idle_s=180.0)
    assert await run(peer, machine) == "poweroff"
    assert len(peer.hellos) in (3, 4)
    assert machine.ends == ["poweroff"]


async def test_an_idle_machine_restarts_when_a_job_wants_it(machine):
    assert await run(AgentPeer(bound=False, hello_do="reboot"), machine) == "reboot"


async def test_an_unknown_step_is_refused_with_a_sentence(machine):
    peer = AgentPeer(
        plan=[{"do": "dance"}, {"do": "wipe", "disk": {"serial": "no"}}, {"do": "reboot"}]
    )
    assert await run(peer, machine) == "reboot"
    assert [one["error"] for one in peer.results][:2] == [
        "this ramdisk does not know the step 'dance'",
        "no writable disk has the serial 'no'; there are: vda S1",
    ]


async def test_the_agent_leaves_without_a_word_when_its_power_goes(peer, machine):
    assert await run(peer, machine, stop=lambda: len(peer.results) > 0) == "stopped"
    assert machine.ends == []
    assert len(peer.results) == 1
