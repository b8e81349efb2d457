"""The desk of one job in virtual time: binding, heartbeats, second keys, commands."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.proto.agent_desk import (
    SILENCE_MS,
    AgentDesk,
    Alarm,
    Answer,
    Bound,
    Command,
    Progressed,
    Reported,
)
from node.proto.agent_wire import Hello, Report, SignedCall, signed_message


class Peer:
    def __init__(self, uuid: str | None = "u1", serial: str | None = "s1") -> None:
        self.key = Ed25519PrivateKey.generate()
        self.public = self.key.public_key().public_bytes_raw().hex()
        self.uuid, self.serial, self.counter = uuid, serial, 0

    def hello(self) -> Hello:
        return Hello(
            mac="52:54:00:00:00:01", macs=(), cap="c", key=self.public, seal=b"x" * 32,
            uuid=self.uuid, serial=self.serial,
        )  # fmt: skip

    def call(self, session: str, counter: int | None = None, path: str = "/n") -> SignedCall:
        self.counter = self.counter + 1 if counter is None else counter
        message = signed_message(session, self.counter, path, b"{}")
        return SignedCall(
            session=session, counter=self.counter, signature=self.key.sign(message), path=path,
            body=b"{}",
        )  # fmt: skip


def new_desk(agent: Any = None, attempt: int = 1) -> AgentDesk:
    return AgentDesk("srv1", attempt, 1, 3, agent, 0)


def answer(effects: list[Any]) -> Answer:
    (found,) = [effect for effect in effects if isinstance(effect, Answer)]
    return found


def ask(desk: AgentDesk, peer: Peer, now: int, report: Report | None = None) -> list[Any]:
    return desk.on_next(peer.call(str(desk.session)), report, lambda c: c.args, now)


def test_the_first_hello_binds_and_the_row_has_it_before_the_answer() -> None:
    desk, peer = new_desk(), Peer()
    effects = desk.on_hello(peer.hello(), 1, "s1", 10)
    assert effects[0] == Bound(1, False)
    assert answer(effects).body["session"] == "s1"
    assert answer(effects).body["bound"] is True
    row = desk.agent_row() or {}
    assert (row["key"], row["uuid"], row["serial"]) == (peer.public, "u1", "s1")
    assert desk.alive(10 + SILENCE_MS - 1)
    assert not desk.alive(10 + SILENCE_MS)


@pytest.mark.parametrize("attempt", [0, 1, 3])
def test_a_capability_of_another_attempt_binds_nothing(attempt: int) -> None:
    desk = new_desk(attempt=2)
    assert answer(desk.on_hello(Peer().hello(), attempt, "s", 0)).status == 403
    assert desk.agent_row() is None


def test_the_same_key_binds_again_after_a_restart_of_the_node() -> None:
    peer = Peer()
    before = new_desk()
    before.on_hello(peer.hello(), 1, "s1", 0)
    desk = AgentDesk("srv1", 1, 1, 3, before.agent_row(), 100)
    assert answer(ask_with(desk, peer, "s1", 101)).status == 403
    assert desk.on_hello(peer.hello(), 1, "s2", 102)[0] == Bound(1, False)
    assert answer(ask_with(desk, peer, "s2", 103)).status == 200


def ask_with(desk: AgentDesk, peer: Peer, session: str, now: int) -> list[Any]:
    return desk.on_next(peer.call(session), None, lambda c: c.args, now)


def test_counters_grow_strictly_and_signatures_are_of_the_bound_key() -> None:
    desk, peer, other = new_desk(), Peer(), Peer()
    desk.on_hello(peer.hello(), 1, "s1", 0)
    call = peer.call("s1", 5)
    assert answer(desk.on_next(call, None, lambda c: c.args, 1)).status == 200
    assert answer(desk.on_next(call, None, lambda c: c.args, 2)).status == 409
    assert answer(desk.on_next(peer.call("s1", 4), None, lambda c: c.args, 3)).status == 409
    assert answer(desk.on_next(other.call("s1", 9), None, lambda c: c.args, 4)).status == 403
    moved = SignedCall(
        session="s1", counter=6, signature=call.signature, path=call.path, body=call.body
    )
    assert answer(desk.on_next(moved, None, lambda c: c.args, 5)).status == 403
    assert desk.rejected == 4
    assert desk.silent_ms(10) == 9  # none of the bad calls was a heartbeat


def test_other_hardware_under_a_living_session_raises_the_alarm_at_once() -> None:
    desk, peer = new_desk(), Peer()
    desk.on_hello(peer.hello(), 1, "s1", 0)
    effects = desk.on_hello(Peer(uuid="u2").hello(), 1, "s2", SILENCE_MS - 1)
    assert isinstance(effects[0], Alarm)
    assert answer(effects).status == 409
    assert desk.key == peer.public


def test_a_second_key_of_the_same_hardware_waits_and_two_voices_raise_the_alarm() -> None:
    desk, peer, second = new_desk(), Peer(), Peer()
    desk.on_hello(peer.hello(), 1, "s1", 0)
    waits = answer(desk.on_hello(second.hello(), 1, "s2", 1_000))
    assert (waits.status, waits.body["bound"]) == (200, False)
    assert desk.key == peer.public
    effects = ask(desk, peer, 2_000)
    assert isinstance(effects[0], Alarm)
    assert answer(effects).status == 409


def test_after_silence_the_second_key_opens_a_new_attempt_at_most_three() -> None:
    desk, now = new_desk(), 0
    desk.command = Command(id="write.1", do="write_image", args={})
    desk.on_hello(Peer().hello(), 1, "s1", now)
    for attempt in (2, 3):
        second = Peer()
        assert desk.on_hello(second.hello(), attempt - 1, "w", now + 1)[0].status == 200
        now += SILENCE_MS
        assert desk.on_hello(second.hello(), attempt - 1, "s2", now)[0] == Bound(attempt, True)
        assert desk.on_hello(second.hello(), attempt - 1, "s3", now)[0] == Bound(attempt, False)
        given = answer(ask(desk, second, now))
        assert given.body["step"] == {"id": "write.1", "do": "write_image"}
    effects = desk.on_hello(Peer().hello(), 3, "s4", now + SILENCE_MS)
    assert isinstance(effects[0], Alarm)
    assert desk.attempt == 3


def test_after_our_own_power_cut_the_next_key_binds_without_waiting() -> None:
    desk, second = new_desk(), Peer()
    desk.on_hello(Peer().hello(), 1, "s1", 0)
    desk.on_power_cut()
    assert not desk.alive(1)
    assert desk.on_hello(second.hello(), 1, "s2", 1)[0] == Bound(2, True)


def test_a_command_is_given_until_its_report_came_and_an_old_report_is_ignored() -> None:
    desk, peer = new_desk(), Peer()
    desk.on_hello(peer.hello(), 1, "s1", 0)
    desk.command = Command(id="wipe.1.1", do="wipe", args={"disk": {"first": True}})
    for now in (1, 2):
        step = answer(ask(desk, peer, now)).body["step"]
        assert step == {"id": "wipe.1.1", "do": "wipe", "disk": {"first": True}}
    old = Report(step="wipe.0.1", ok=True, evidence={}, error=None)
    assert answer(ask(desk, peer, 3, old)).body["step"] is not None
    done = Report(step="wipe.1.1", ok=True, evidence={"bytes": 1}, error=None)
    effects = ask(desk, peer, 4, done)
    assert effects[0] == Reported("wipe.1.1", True, {"bytes": 1}, None)
    assert answer(effects).body["step"] is None
    assert ask(desk, peer, 5, done)[0].body["step"] is None  # told twice


def test_progress_counts_for_the_current_command_only() -> None:
    desk, peer = new_desk(), Peer()
    desk.on_hello(peer.hello(), 1, "s1", 0)
    desk.command = Command(id="w", do="wipe", args={})
    effects = desk.on_progress(peer.call("s1"), "w", 1, 2, 1)
    assert effects[0] == Progressed("w", 1, 2)
    effects = desk.on_progress(peer.call("s1"), "v", 1, 2, 2)
    assert "does not want v" in answer(effects).body["abort"]


def test_a_new_attempt_of_the_job_forgets_who_was_bound() -> None:
    desk, peer = new_desk(), Peer()
    desk.on_hello(peer.hello(), 1, "s1", 0)
    desk.on_new_attempt(2)
    assert desk.agent_row() is None
    assert answer(desk.on_hello(peer.hello(), 1, "s2", 1)).status == 403
    assert desk.on_hello(peer.hello(), 2, "s3", 1)[0] == Bound(2, False)
