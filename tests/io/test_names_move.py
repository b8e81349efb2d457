"""A name moves to what its origin has now: the node's service and the hub's desk, one store."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from hub.errors import BadRequest
from mesh.proto import tables
from mesh.proto.references import PERIOD_MS
from mesh.rest.asset_view import assets
from node.revalidation import Revalidation
from tests.support.hub_office import Office, office, said
from tests.support.origin import Origin

OLD, NEW = b"old" * 1000, b"new!" * 1000


@dataclass
class Turned:
    """A clock that is turned by hand."""

    ms: int = 0

    def now_ms(self) -> int:
        return self.ms


@dataclass
class Site:
    at: Office
    origin: Origin
    clock: Turned
    service: Revalidation

    async def day_later(self) -> None:
        """Let a period pass, and make the checks that are due."""
        self.clock.ms += PERIOD_MS + 1
        for due in self.service.due_now():
            await self.service.carry_out(*due)
        await self.at.assets.sign_claims()
        for name, named in self.at.assets.names().items():
            self.at.cache.settle(name, named.asset)

    def sha256(self) -> str:
        return self.at.assets.names()["img"].sha256

    def row(self) -> dict[str, Any]:
        (row,) = self.at.store.authored(tables.FLEET, tables.CHECK)
        return dict(row.body)

    def shown(self) -> dict[str, Any]:
        """Return the asset as the API shows it, were the author a node of the site."""
        store, fleet = self.at.store, tables.FLEET
        member = SimpleNamespace(node_id=self.at.hub.node_id, site="lab", status="member")
        (item,) = assets(
            store.rows(fleet, tables.REFERENCE), store.rows(fleet, tables.NAME),
            store.authored(fleet, tables.PRESENCE), [member],  # type: ignore[list-item]
            store.authored(fleet, tables.CHECK),
        )  # fmt: skip
        return {**item, "site": item["sites"][0]}

    def reads(self) -> int:
        return sum(method == "GET" for method, _ in self.origin.requests)


@asynccontextmanager
async def site(folder: Path, sha256: str | None = None) -> AsyncGenerator[Site]:
    """A hub and a node in one process, and a name of theirs that was signed by trust."""
    async with office(folder) as at, trio.open_nursery() as nursery:
        origin, clock = Origin(OLD), Turned()
        await nursery.start(origin.run)
        await at.assets.declare(said("img", origin.url, sha256, ["lab"]))
        manifest = await at.cache.resolve("img", origin.url, sha256)
        await at.put(
            tables.FLEET, tables.ASSET, "img", name="img", asset=manifest.asset,
            size=manifest.size, sha256=manifest.sha256,
        )  # fmt: skip
        assert await at.assets.sign_claims() == 1
        clock.ms = at.assets.names()["img"].version
        service = Revalidation(
            node=at.hub.node_id, site="lab", cache=at.cache, store=at.store, clock=clock,
            alive=list, signed=lambda name: at.assets.names().get(name),
            site_of=lambda _node: "lab",
        )  # fmt: skip
        yield Site(at, origin, clock, service)
        nursery.cancel_scope.cancel()


async def test_nothing_is_asked_before_a_period_is_over(tmp_path: Path) -> None:
    async with site(tmp_path) as one:
        one.clock.ms += PERIOD_MS - 1
        assert one.service.due_now() == []
        await one.day_later()
        await one.day_later()
        assert [method for method, _ in one.origin.requests] == ["GET", "HEAD", "HEAD"]
        assert one.row()["etag"] == '"one"'
        assert one.sha256() == hashlib.sha256(OLD).hexdigest()


async def test_a_name_moves_there_and_back_and_old_claims_move_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as one:
        await one.day_later()
        old = one.at.assets.names()["img"]
        one.origin.content, one.origin.etag = NEW, '"two"'
        await one.day_later()
        new = one.at.assets.names()["img"]
        assert new.sha256 == hashlib.sha256(NEW).hexdigest()
        assert new.version > old.version
        assert one.at.cache.holds(old.asset), "it stands aside"
        assert one.at.cache.holds(new.asset)
        assert await one.at.assets.sign_claims() == 0
        assert one.at.assets.conflicts() == []
        await one.day_later()
        assert one.reads() == 2, "its tag is known from the check that found it"
        one.origin.content, one.origin.etag = OLD, '"three"'
        await one.day_later()
        assert one.at.assets.names()["img"].asset == old.asset
        assert one.shown()["site"]["stale"] is None
        await one.day_later()
        assert await one.at.assets.sign_claims() == 0, "nor to and fro"
        assert one.reads() == 3


async def test_an_origin_that_is_away_changes_nothing_but_what_is_said(tmp_path: Path) -> None:
    async with site(tmp_path) as one:
        await one.day_later()
        heard = one.shown()["site"]["checked_ms"]
        assert heard == one.clock.ms
        one.origin.status = 503
        await one.day_later()
        shown = one.shown()["site"]
        assert shown["checked_ms"] == heard
        assert "its origin could not be asked: the origin answered 503" in shown["stale"]
        assert one.row()["etag"] == '"one"', "what it had said is kept"
        one.clock.ms += PERIOD_MS // 8
        assert len(one.service.due_now()) == 1, "it is asked again sooner"


async def test_other_content_under_a_declared_hash_is_a_sentence(tmp_path: Path) -> None:
    declared = hashlib.sha256(OLD).hexdigest()
    async with site(tmp_path, declared) as one:
        one.origin.content, one.origin.etag = NEW, '"two"'
        await one.day_later()
        assert one.sha256() == declared
        assert "img stays as it is" in one.shown()["site"]["stale"]
        assert one.reads() == 1


async def test_new_validators_of_the_same_content_lengthen_the_period(tmp_path: Path) -> None:
    async with site(tmp_path) as one:
        await one.day_later()
        one.origin.etag = '"two"'
        await one.day_later()
        assert (one.reads(), one.row()["same"], one.row()["etag"]) == (2, 1, '"two"')
        one.origin.etag = '"three"'
        await one.day_later()
        assert one.reads() == 2, "not after one period"
        await one.day_later()
        assert (one.reads(), one.row()["same"]) == (3, 2)


async def test_what_no_hub_signs_is_claimed_again_and_not_read_again(tmp_path: Path) -> None:
    async with site(tmp_path) as one:
        await one.day_later()
        one.origin.content, one.origin.etag = NEW, '"two"'
        for _ in range(2):
            one.clock.ms += PERIOD_MS + 1
            (due,) = one.service.due_now()
            await one.service.carry_out(*due)
            assert "waits for a hub to sign" in one.shown()["site"]["stale"]
        assert one.reads() == 2
        one.origin.content, one.origin.etag = NEW * 2, '"three"'
        await one.day_later()
        assert one.sha256() == hashlib.sha256(NEW * 2).hexdigest(), "not what it had meanwhile"


async def test_never_and_periods_that_cannot_be(tmp_path: Path) -> None:
    async with site(tmp_path) as one:
        asked = said("img", one.origin.url, None, [])
        for wrong in (1, 3599):
            with pytest.raises(BadRequest, match="0 \\(never\\) or 3600 to 31536000"):
                await one.at.assets.declare(replace(asked, revalidate_s=wrong))
        with pytest.raises(BadRequest, match="only what has a url is revalidated"):
            await one.at.assets.declare(replace(said("x", None, None, []), revalidate_s=3600))
        await one.at.assets.declare(replace(asked, revalidate_s=0))
        await one.at.assets.declare(asked)
        await one.day_later()
        assert one.shown()["revalidate_s"] == 0, "as it was"
        assert len(one.origin.requests) == 1
