"""The root voids keys that leaked, and lets nodes speak for their sites."""

from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hub.errors import BadRequest
from hub.root_asked import Asked
from hub.trust_desk import TrustDesk
from mesh.cli.errors import Failure
from mesh.membership import Voice, admit, speak_for_self
from mesh.proto.courier import make_piece
from mesh.proto.register import Register
from mesh.proto.role_keys import sign_document, with_keys
from mesh.proto.serve import records_missing
from mesh.proto.sync_wire import Deltas, Records
from mesh.proto.trust import (
    ROSTER,
    TRUST,
    RosterRecord,
    TrustDocument,
    make_roster_record,
)
from mesh.proto.void import make_kept_records, with_site_key, with_void
from tests.support.hub_bench import founded, second_hub
from tests.support.trust import identity


class Client:
    """A hub's API as far as it is asked; the register comes in small pieces."""

    def __init__(self, desk: TrustDesk) -> None:
        self.desk = desk

    def get(self, path: str, at: str | None = None) -> Any:
        assert path == "/state"
        records, start = self.desk.register.register.records(), int(at or 0)
        given, _ = records_missing(records[start : start + 2], b"")
        message: Records | Deltas = Records(0, given, True) if given else Deltas(0, ())
        piece = b64encode(make_piece(message)).decode()
        return {"item": {"piece": piece, "next": str(start + 2) if given else None}}


def asked(desk: TrustDesk) -> Asked:
    return Asked(Client(desk), desk.keys.root_fp, dict(desk.describe()), list(desk.hubs()))  # type: ignore[arg-type]


def present(desk: TrustDesk) -> TrustDocument:
    trust = desk.register.register.trust
    assert trust is not None
    return trust


def signed(desk: TrustDesk, trust: TrustDocument) -> str:
    return b64encode(sign_document(desk.keys.root(), trust)).decode()


def add(desk: TrustDesk, by: TrustDesk, label: str, *roles: str) -> None:
    admit(
        by.keys, desk.register, identity(label).public, site="fra1",
        roles=frozenset({"node", *roles}), name=label,
    )  # fmt: skip


async def test_of_a_leaked_key_stays_what_the_hub_knows_and_nothing_else(tmp_path: Path):
    first = founded(tmp_path / "a")
    second = await second_hub(first, tmp_path / "b")
    keys = second.keys.role_keys(second.identity.node_id)
    await first.replace(signed(first, with_keys(present(first), keys)))
    for label in ("good", "thief"):
        add(first, second, label)
    root, root_fp, leaked = first.keys.root(), first.keys.root_fp, keys.membership
    standing = asked(first).standing(leaked, ("thief",))
    lists = make_kept_records(root, root_fp, standing)
    made = with_void(present(first), leaked, "", lists, root_fp)
    with pytest.raises(BadRequest, match="lists are missing"):
        await first.replace(signed(first, made))
    assert present(first).version == 2
    shown = await first.replace(signed(first, made), [b64encode(one).decode() for one in lists])
    assert shown["version"] == 3
    active = first.register.register.active
    assert active(identity("good").node_id)
    assert not active(identity("thief").node_id)
    late = RosterRecord(identity("late").public, 2, 1, "fra1", frozenset({"node"}))
    first.register.merge(make_roster_record(second.keys.membership, root_fp, late))
    assert not active(identity("late").node_id)
    again = replace(present(first), version=4)
    assert (await first.replace(signed(first, again)))["version"] == 4, "the lists are here"


async def test_a_hub_signs_itself_anew_when_the_key_that_admitted_it_is_void(tmp_path: Path):
    """Otherwise nobody could join at it: its record would stand by a list alone."""
    first = founded(tmp_path / "a")
    second = await second_hub(first, tmp_path / "b")
    own = second.identity.node_id
    keys = second.keys.role_keys(own)
    await first.replace(signed(first, with_keys(present(first), keys)))
    register, root_fp = first.register, first.keys.root_fp
    voice = Voice(second.keys.membership)
    assert not speak_for_self(voice, register, own)
    leaked = first.keys.membership.public
    lists = make_kept_records(first.keys.root(), root_fp, asked(first).standing(leaked, ()))
    made = with_void(present(first), leaked, "", lists, root_fp)
    await first.replace(signed(first, made), [b64encode(one).decode() for one in lists])
    assert register.register.active(own)
    assert not speak_for_self(Voice(first.keys.membership), register, own)
    assert speak_for_self(voice, register, own)
    newcomer = Register(root_fp)
    for kind, subject in ((TRUST, ""), (ROSTER, own)):
        record = register.register.record(kind, subject)
        assert record is not None
        newcomer.merge(record)
    assert newcomer.active(own), "without any list"


async def test_a_site_operator_is_found_by_its_whole_id_and_by_nothing_less(tmp_path: Path):
    desk = founded(tmp_path / "a")
    add(desk, desk, "boss", "site-operator")
    add(desk, desk, "plain")
    boss = identity("boss")
    member = asked(desk).operator(boss.node_id)
    assert member.identity_public == boss.public
    await desk.replace(
        signed(desk, with_site_key(present(desk), member.site, member.identity_public))
    )
    assert present(desk).site_keys == {"fra1": (boss.public,)}
    for wrong, says in (
        ("boss", "is no id"),
        (identity("nobody").node_id, "there is no node"),
        (identity("plain").node_id, "no active site-operator"),
    ):
        with pytest.raises(Failure, match=says):
            asked(desk).operator(wrong)
    with pytest.raises(Failure, match="there is no node 'x'"):
        asked(desk).standing(desk.keys.membership.public, ("x",))
