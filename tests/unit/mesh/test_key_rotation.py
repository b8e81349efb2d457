"""A node's X25519 key is replaced: durably first, shown at once, the old one kept in need."""

import os
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from mesh import identity as identity_module
from mesh.errors import Refused
from mesh.host.clock import FixedClock
from mesh.identity import OLD_KEYS_MAX, Identity, load_or_make_identity, make_identity
from mesh.key_rotation import KeyRotation
from mesh.proto.key_age import (
    DAY_MS,
    EXPIRED_MS,
    KEPT_MS,
    REPLACE_MS,
    is_due,
    is_expired,
    may_go,
)
from mesh.proto.steady_time import WRITTEN_MS
from mesh.proto.tables import SECRET_COPY, site_scope
from mesh.proto.trust import KEY, open_key_record
from mesh.register_store import RegisterStore
from mesh.secrets import read_secret, set_secret, to_seal_anew
from tests.support.rows import RowStore, World
from tests.support.trust import Org, seed

NOW_MS = WRITTEN_MS + 90 * DAY_MS


class Site:
    """A node with its keys on disk, its register and a hub that sets secrets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FixedClock(NOW_MS)
        self.who = load_or_make_identity(folder / "keys", now_ms=NOW_MS)
        self.org = Org()
        self.hub = self.org.admit_hub()
        self.org.register.merge(self.org.roster(self.who))
        self.org.register.merge(self.who.key_record)
        self.register = RegisterStore.open(folder / "register", self.org.root_fp)
        self.register.merge_all(self.org.register.records())
        self.world = World()
        self.store = RowStore(self.world, self.who.node_id)
        self.links: list[str] = []
        self.keys = self.rotation(self.who)

    def rotation(self, who: Identity) -> KeyRotation:
        return KeyRotation(who, self.register, self.store, self.clock, self.links.append)

    async def set_secret(self, value: bytes, secret_id: str = "bmc-1") -> None:
        hub = RowStore(self.world, self.hub.node_id)
        register = self.register.register
        await hub.write(
            lambda tx: set_secret(tx, register, secret_id, "bmc", value, site="lab")
        )

    def read(self, secret_id: str = "bmc-1") -> bytes:
        return read_secret(self.store, self.register.register, self.who, secret_id)

    def known_epoch(self) -> int:
        member = self.register.register.member(self.who.node_id)
        assert member is not None
        return member.kem_epoch


def test_a_new_key_is_on_disk_in_the_register_and_shown_to_peers(tmp_path):
    site = Site(tmp_path)
    before = site.who.kem_private
    assert site.keys.rotate("asked") == 2
    assert site.who.kem_private != before
    assert site.who.sealed_to(1) == before
    assert site.links == ["this node has a new key"]
    assert site.known_epoch() == 2
    again = load_or_make_identity(tmp_path / "keys")
    assert (again.kem_private, again.sealed_to(1)) == (site.who.kem_private, before)
    assert again.key_record == site.who.key_record
    assert open_key_record(again.key_record).made_ms == NOW_MS
    assert (tmp_path / "keys" / "identity.key").stat().st_mode & 0o077 == 0


def test_a_key_that_cannot_be_written_is_never_used(tmp_path, monkeypatch):
    site = Site(tmp_path)
    before = (site.who.kem_private, site.who.key_record)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(identity_module, "write_file", full)
    with pytest.raises(Refused, match="the old one is still in use"):
        site.keys.rotate("asked")
    assert (site.who.kem_private, site.who.key_record) == before
    assert site.known_epoch() == 1
    assert site.links == []


def test_a_crash_before_the_register_knew_is_made_good_at_the_next_start(tmp_path):
    site = Site(tmp_path)
    site.who.renew(0, NOW_MS)  # and the process dies
    site.rotation(load_or_make_identity(tmp_path / "keys")).check()
    assert site.known_epoch() == 2


def test_a_restored_node_makes_a_key_above_every_one_that_is_known(tmp_path):
    site = Site(tmp_path)
    backup = (tmp_path / "keys" / "identity.key").read_bytes()
    for _ in range(3):
        site.keys.rotate("asked")
    (tmp_path / "keys" / "identity.key").write_bytes(backup)
    restored = load_or_make_identity(tmp_path / "keys")
    keys = site.rotation(restored)

    async def check() -> None:
        keys.check()
        assert restored.kem_epoch == site.known_epoch() == 5
        site.who.renew(5, NOW_MS)  # a twin does the same
        site.register.merge(site.who.key_record)
        keys.check()
        assert restored.kem_epoch == 5, "twins do not outbid each other without end"

    trio.run(check)


async def test_secrets_stay_readable_and_are_sealed_to_the_new_key(tmp_path):
    site = Site(tmp_path)
    await site.set_secret(b"password")
    site.keys.rotate("asked")
    assert site.read() == b"password"
    assert to_seal_anew(site.store, site.register.register, site.who) == {"bmc-1": 1}
    await site.keys._tidy()
    assert to_seal_anew(site.store, site.register.register, site.who) == {}
    site.who.forget([1])
    assert site.read() == b"password"
    (row,) = site.store.authored(site_scope("lab"), SECRET_COPY)
    assert row.body["kem_epoch"] == 2


async def test_what_a_hub_sets_later_is_read_and_not_our_copy(tmp_path):
    site = Site(tmp_path)
    await site.set_secret(b"old")
    site.keys.rotate("asked")
    await site.keys._tidy()
    await site.set_secret(b"new")
    assert site.read() == b"new"


async def test_a_replaced_key_stays_while_a_secret_needs_it_and_for_a_time(tmp_path):
    site = Site(tmp_path)
    site.keys.rotate("asked")
    site.keys.rotate("asked")
    await site.keys._tidy()
    assert sorted(site.who.replaced()) == [1, 2], "a hub in the dark may still seal to them"
    site.clock.advance(KEPT_MS + 1)
    await site.keys._tidy()
    assert site.who.replaced() == {}
    assert load_or_make_identity(tmp_path / "keys").replaced() == {}


def test_the_number_of_replaced_keys_is_bounded(tmp_path):
    who = load_or_make_identity(tmp_path, now_ms=NOW_MS)
    for _ in range(OLD_KEYS_MAX + 3):
        who.renew(0, NOW_MS)
    assert len(who.replaced()) == OLD_KEYS_MAX
    assert min(who.replaced()) == 4
    assert len(load_or_make_identity(tmp_path).replaced()) == OLD_KEYS_MAX


def test_a_key_is_replaced_after_a_month_by_itself(tmp_path):
    site = Site(tmp_path)
    site.keys.check()
    assert site.who.kem_epoch == 1
    site.clock.advance(REPLACE_MS)
    site.keys.check()
    assert site.who.kem_epoch == 2
    assert site.register.register.record(KEY, site.who.node_id) == site.who.key_record


def test_a_key_file_of_an_earlier_release_is_read_and_its_key_replaced(tmp_path):
    from mesh.keyfile import render_lines, write_new

    lines = {"identity": os.urandom(32).hex(), "kem-epoch": "1", "kem": os.urandom(32).hex()}
    write_new(tmp_path / "identity.key", render_lines("rackmesh-identity 1", lines))
    who = load_or_make_identity(tmp_path)
    assert (who.kem_epoch, who.kem_made_ms) == (1, 0)
    assert is_due(who.kem_made_ms, NOW_MS, 0.5)


def test_a_dead_clock_dates_nothing(tmp_path):
    who = load_or_make_identity(tmp_path, now_ms=86_400_000)
    assert who.kem_made_ms == 0
    assert open_key_record(who.key_record).made_ms == 0
    assert not is_due(0, 86_400_000, 1.0)
    who.renew(0, 86_400_000)
    assert who.kem_made_ms == 0


@given(st.integers(0, 1 << 62), st.integers(0, 1 << 62), st.floats(0, 1))
def test_ages_are_judged_in_one_direction(made_ms: int, now_ms: int, spread: float):
    if is_expired(made_ms, now_ms):
        assert now_ms - made_ms > EXPIRED_MS
        assert is_due(made_ms, now_ms, spread)
    if may_go(made_ms, now_ms):
        assert is_expired(made_ms, now_ms)


def test_no_private_key_is_shown():
    who = make_identity(seed("a"), seed("b"))
    who.renew(0, NOW_MS)
    for secret in (seed("b"), who.kem_private):
        assert secret.hex() not in repr(who)
        assert secret.hex() not in repr(who._kem)
