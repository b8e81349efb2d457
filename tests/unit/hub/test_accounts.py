"""Accounts, sessions and API tokens: who gets in, who decides, and what ends at once."""

import json
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from nacl import pwhash

from hub.accounts import Accounts
from hub.api.auth import COOKIE, LOCAL_UID, client_address
from hub.api_tokens import KEEP_ENDED_MS, ApiTokens
from hub.app import make_app
from hub.desk import SESSIONS_MAX, USE_MS, Desk
from hub.errors import BadRequest, Conflict, NotFound, TooMany
from hub.limits import TRIES, Limits
from hub.passwords import Passwords
from hub.proto.throttle import Throttle
from mesh.host.clock import FixedClock
from mesh.proto.tables import ACCOUNT, API_TOKEN, HUBS
from mesh.rest.roles import ROLES, covers
from tests.support.hub_bench import API_TOKEN as HUB_TOKEN
from tests.support.hub_bench import Bench, hub_bench
from tests.support.rows import RowStore, World

PASSWORD = "correct horse"


@dataclass
class Hub:
    store: RowStore
    accounts: Accounts
    desk: Desk
    tokens: ApiTokens
    clock: FixedClock


def hub(folder: Path, world: World | None = None, name: str = "h1") -> Hub:
    """Return the people's side of a hub; hubs of one world see each other's rows."""
    clock, store = FixedClock(), RowStore(world or World(), name)
    accounts = Accounts(store, Passwords(), clock)
    desk = Desk.open(folder / f"{name}.db", accounts)
    return Hub(store, accounts, desk, ApiTokens(store, desk, HUB_TOKEN, clock), clock)


async def test_passwords_are_checked_and_kept_as_argon2id(tmp_path: Path) -> None:
    at = hub(tmp_path)
    await at.accounts.create("ann", "admin", PASSWORD)
    assert await at.accounts.check_password("ann", PASSWORD) is not None
    assert await at.accounts.check_password("ann", PASSWORD + "x") is None
    assert await at.accounts.check_password("nobody", PASSWORD) is None
    assert await at.accounts.check_password("ann", "x" * 10_000) is None
    with pytest.raises(BadRequest, match="8 characters"):
        await at.accounts.set_password("ann", "short")
    row = at.store.get(HUBS, ACCOUNT, "ann")
    assert row is not None
    assert row.body["password"].startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert PASSWORD not in repr(at.store.world.rows)
    assert row.body["password"] not in repr(at.accounts.find("ann"))
    at.desk.close()


async def test_what_cannot_be_an_account_is_one_sentence(tmp_path: Path) -> None:
    at = hub(tmp_path)
    await at.accounts.create("ann", "admin", PASSWORD)
    with pytest.raises(BadRequest, match="not 'a b'"):
        await at.accounts.create("a b", "admin", PASSWORD)
    with pytest.raises(BadRequest, match="viewer, operator, admin, not 'root'"):
        await at.accounts.create("bob", "root", PASSWORD)
    with pytest.raises(Conflict, match="'ann' already"):
        await at.accounts.create("ann", "viewer", PASSWORD)
    for call in (at.accounts.set_password("bob", PASSWORD), at.accounts.remove("bob")):
        with pytest.raises(NotFound, match="no account 'bob'"):
            await call
    at.desk.close()


async def test_the_last_enabled_admin_stays(tmp_path: Path) -> None:
    at = hub(tmp_path)
    await at.accounts.create("ann", "admin", PASSWORD)
    await at.accounts.create("bob", "admin", PASSWORD)
    await at.accounts.change("bob", disabled=True)
    for call in (
        at.accounts.change("ann", role="operator"),
        at.accounts.change("ann", disabled=True),
        at.accounts.remove("ann"),
    ):
        with pytest.raises(Conflict, match="ann is the last enabled admin"):
            await call
    await at.accounts.change("bob", disabled=False)
    await at.accounts.remove("ann")
    assert [account.name for account in at.accounts.list()] == ["bob"]
    at.desk.close()


def test_sessions_end_in_time_and_are_kept_hashed(tmp_path: Path) -> None:
    at = hub(tmp_path)
    at.store.put(HUBS, ACCOUNT, "ann", {"role": "admin", "password": "x", "stamp": b"1"})
    desk = at.desk
    secret, session = desk.sign_in("ann", 1000)
    assert desk.session(secret, 1000) == session
    assert desk.session(secret, session.until_ms) is None
    assert desk.session("guess", 1000) is None
    for number in range(SESSIONS_MAX):
        desk.sign_in("ann", 2000 + number)
    assert desk.session(secret, 3000) is None, "the oldest session made room"
    desk.close()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() not in content
    assert (tmp_path / "h1.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("change", ["password", "role", "disabled", "removed"])
async def test_a_change_ends_the_sessions_of_an_account_at_every_hub(
    tmp_path: Path, change: str
) -> None:
    world = World()
    here, there = hub(tmp_path, world, "h1"), hub(tmp_path, world, "h2")
    await here.accounts.create("root", "admin", PASSWORD)
    await here.accounts.create("ann", "operator", PASSWORD)
    assert await there.accounts.check_password("ann", PASSWORD), "both hubs know her"
    signed_in = [(at.desk, at.desk.sign_in("ann", 1000)[0]) for at in (here, there)]
    other, _ = there.desk.sign_in("root", 1000)
    assert all(desk.session(secret, 1001) for desk, secret in signed_in)
    match change:
        case "password":
            await here.accounts.set_password("ann", "new password")
        case "role":
            await here.accounts.change("ann", role="viewer")
            await here.accounts.change("ann", role="operator")
        case "disabled":
            await here.accounts.change("ann", disabled=True)
            await here.accounts.change("ann", disabled=False)
        case _:
            await here.accounts.remove("ann")
            await here.accounts.create("ann", "operator", PASSWORD)
    assert not any(desk.session(secret, 1002) for desk, secret in signed_in)
    assert there.desk.session(other, 1002), "nobody else's session ends"
    here.desk.close()
    there.desk.close()


async def test_a_disabled_account_does_not_sign_in(tmp_path: Path) -> None:
    at = hub(tmp_path)
    await at.accounts.create("root", "admin", PASSWORD)
    await at.accounts.create("ann", "viewer", PASSWORD)
    await at.accounts.change("ann", disabled=True)
    assert await at.accounts.check_password("ann", PASSWORD) is None
    at.desk.close()


async def test_the_account_of_an_older_hub_moves_once(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "h1.db")
    old.execute("CREATE TABLE account (name TEXT, password TEXT, changed_ms INTEGER)")
    hashed = pwhash.argon2id.str(PASSWORD.encode(), opslimit=2, memlimit=19 << 20).decode()
    old.execute("INSERT INTO account VALUES ('admin', ?, 1)", (hashed,))
    old.commit()
    old.close()
    at = hub(tmp_path)
    assert await at.desk.move_accounts() == 1
    found = await at.accounts.check_password("admin", PASSWORD)
    assert found is not None
    assert found.role == "admin"
    assert await at.desk.move_accounts() == 0
    at.desk.close()


async def test_a_token_opens_with_its_role_until_it_is_revoked_or_over(tmp_path: Path) -> None:
    at = hub(tmp_path)
    _, text = await at.tokens.create("ci", "operator", 60, "ann")
    _, for_good = await at.tokens.create("exporter", "viewer", None, "ann")
    found = at.tokens.check(text)
    assert found is not None
    assert (found.author, found.role) == ("token:ci", "operator")
    assert at.tokens.check(text[:-1]) is None
    assert at.tokens.check(text.partition(".")[2]) is None
    assert at.tokens.check(HUB_TOKEN).role == "admin"  # type: ignore[union-attr]
    with pytest.raises(Conflict, match="'ci' already"):
        await at.tokens.create("ci", "viewer", None, "ann")
    at.clock.advance(60_000)
    assert at.tokens.check(text) is None
    assert at.tokens.check(for_good) is not None
    exporter = next(token for token in at.tokens.list() if token["name"] == "exporter")
    assert (await at.tokens.revoke(exporter["id"]))["state"] == "revoked"
    assert at.tokens.check(for_good) is None
    assert {token["state"] for token in at.tokens.list()} == {"revoked", "expired"}
    assert text.partition(".")[2] not in repr(at.store.world.rows)
    at.clock.advance(KEEP_ENDED_MS + 1)
    await at.tokens.create("ci", "viewer", None, "ann")
    assert len(at.store.rows(HUBS, API_TOKEN)) == 1, "what ended long ago is gone"
    at.desk.close()


@pytest.mark.parametrize("at_byte", [0, 4096])
def test_damaged_sessions_are_put_aside_and_people_sign_in_again(
    tmp_path: Path, at_byte: int
) -> None:
    at = hub(tmp_path)
    at.store.put(HUBS, ACCOUNT, "ann", {"role": "admin", "password": "x", "stamp": b"1"})
    secret, _ = at.desk.sign_in("ann", 1000)
    at.desk.close()
    path = tmp_path / "h1.db"
    data = bytearray(path.read_bytes())
    data[at_byte : at_byte + 64] = b"\xff" * 64
    path.write_bytes(data)
    again = Desk.open(path, at.accounts)
    assert again.session(secret, 1000) is None
    assert again.session(again.sign_in("ann", 1000)[0], 1000) is not None
    again.close()
    assert (tmp_path / "h1.db.damaged").read_bytes() == data


async def test_the_last_use_of_a_token_is_known_by_the_hour(tmp_path: Path) -> None:
    at = hub(tmp_path)
    _, text = await at.tokens.create("ci", "operator", None, "ann")
    assert at.tokens.list()[0]["last_used_ms"] is None
    assert at.tokens.check(text)
    hour = at.clock.now_ms() // USE_MS * USE_MS
    assert at.tokens.list()[0]["last_used_ms"] == hour
    at.desk.close()
    again = Desk.open(tmp_path / "h1.db", at.accounts)
    assert list(again.last_used().values()) == [hour]
    again.close()


async def test_guessers_cannot_keep_a_person_out_nor_win_tries_by_names() -> None:
    limits = Limits()
    limits.check_sign_in("ann", "home")
    limits.signed_in("ann", "home")
    refused = 0
    for number in range(200):
        try:
            limits.check_sign_in("ann", f"10.0.0.{number}")
        except TooMany:
            refused += 1
    assert refused > 140
    limits.check_sign_in("ann", "home")
    for _ in range(TRIES):
        limits.check_sign_in("", "10.1.0.1")
    with pytest.raises(TooMany, match="too many tries to sign in; try again in 10 s"):
        limits.check_sign_in("", "10.1.0.1")


def test_roles_are_ordered_and_unknown_ones_may_nothing() -> None:
    table = [[covers(role, least) for least in ROLES] for role in ROLES]
    assert table == [[True, False, False], [True, True, False], [True, True, True]]
    assert not covers("root", "viewer")


def test_an_ipv6_network_counts_as_one_address() -> None:
    def seen(text: str) -> str:
        asked = SimpleNamespace(scope={"client": (text, 1)})
        return client_address(cast(Any, asked))

    assert seen("2001:db8:0:1::7") == seen("2001:db8:0:1:ffff::1") != seen("2001:db8:0:2::7")
    assert seen("::ffff:192.0.2.1") == seen("192.0.2.1") == "192.0.2.1"


# -- over HTTP -----------------------------------------------------------------------------


@asynccontextmanager
async def api(folder: Path) -> AsyncGenerator[tuple[Bench, Any]]:
    async with hub_bench(folder) as bench:
        yield bench, make_app(bench.services).test_client()


async def call(client: Any, method: str, path: str, body: Any = None, **headers: str) -> Any:
    given = headers or {"Authorization": f"Bearer {HUB_TOKEN}"}
    data = None if body is None else json.dumps(body).encode()
    response = await client.open(f"/api/v1{path}", method=method, headers=given, data=data)
    return response.status_code, await response.get_json(force=True)


async def test_each_role_may_do_what_it_is_for_and_no_more(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client):
        want = {
            "viewer": (200, 403, 403),
            "operator": (200, 202, 403),
            "admin": (200, 202, 200),
        }
        order = {"kind": "server.power", "server": "web-1", "params": {"on": True}}
        for role, expected in want.items():
            _, text = await bench.services.api_tokens.create(role, role, None, "ann")
            bearer = {"Authorization": f"Bearer {text}"}
            found = (
                (await call(client, "GET", "/servers", **bearer))[0],
                (await call(client, "POST", "/orders", order, **bearer))[0],
                (await call(client, "GET", "/accounts", **bearer))[0],
            )
            assert found == expected, role
        assert bench.fake.orders[-1][1] == "token:admin"
        _, text = await bench.services.api_tokens.create("v2", "viewer", None, "ann")
        status, body = await call(
            client, "POST", "/tokens", {"site": "fra1"}, Authorization=f"Bearer {text}"
        )
        assert status == 403
        assert "needs the role operator; token:v2 is viewer" in body["detail"]


async def test_accounts_are_made_changed_and_removed_by_an_admin(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client):
        await bench.services.accounts.create("root", "admin", PASSWORD)
        new = {"name": "ann", "role": "viewer", "password": PASSWORD}
        status, body = await call(client, "POST", "/accounts", new)
        assert status == 201
        assert body["schema"] == "rackmesh/account/1"
        assert "password" not in body["item"]
        status, body = await call(client, "PATCH", "/accounts/ann", {"role": "operator"})
        assert (status, body["item"]["role"]) == (200, "operator")
        assert (await call(client, "PATCH", "/accounts/ann", {"colour": 1}))[0] == 400
        assert (await call(client, "PATCH", "/accounts/ann", {"disabled": "no"}))[0] == 400
        assert (await call(client, "PATCH", "/accounts/root", {"disabled": True}))[0] == 409
        put = {"password": "another one"}
        assert (await call(client, "PUT", "/accounts/ann/password", put))[0] == 200
        assert await bench.services.accounts.check_password("ann", "another one")
        _, body = await call(client, "GET", "/accounts")
        assert [item["name"] for item in body["items"]] == ["ann", "root"]
        assert (await call(client, "DELETE", "/accounts/ann"))[0] == 200
        assert (await call(client, "GET", "/accounts/ann"))[0] == 404


async def test_a_person_changes_the_own_password_with_the_old_one(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client):
        await bench.services.accounts.create("root", "admin", PASSWORD)
        await bench.services.accounts.create("ann", "viewer", PASSWORD)
        secret, session = bench.services.desk.sign_in("ann", bench.clock.now_ms())
        mine = {"Cookie": f"{COOKIE}={secret}", "X-CSRF-Token": session.csrf}
        new = {"current": "wrong one", "password": "another one"}
        assert (await call(client, "PUT", "/session/password", new, **mine))[0] == 401
        new["current"] = PASSWORD
        status, body = await call(client, "PUT", "/session/password", new, **mine)
        assert (status, body["item"]["role"]) == (200, "viewer")
        assert bench.services.desk.session(secret, bench.clock.now_ms()) is None
        assert (await call(client, "PUT", "/session/password", new))[0] == 403, "a token"


async def test_a_token_is_shown_once_and_its_revocation_holds_at_once(tmp_path: Path) -> None:
    async with api(tmp_path) as (_, client):
        made = {"name": "ci", "role": "viewer", "ttl_s": 3600}
        status, body = await call(client, "POST", "/api-tokens", made)
        assert status == 201
        bearer = {"Authorization": f"Bearer {body['item']['token']}"}
        assert (await call(client, "GET", "/sites", **bearer))[0] == 200
        _, listed = await call(client, "GET", "/api-tokens")
        assert "token" not in listed["items"][0]
        await call(client, "DELETE", f"/api-tokens/{body['item']['id']}")
        assert (await call(client, "GET", "/sites", **bearer))[0] == 401
        assert (await call(client, "DELETE", "/api-tokens/nothing"))[0] == 404
        for wrong in ({"ttl_s": 0}, {"role": "root"}, {"name": "a b"}):
            assert (await call(client, "POST", "/api-tokens", {**made, **wrong}))[0] == 400


async def test_who_asks_too_often_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client):
        bench.services.limits._calls = Throttle(1, 1000.0)
        bench.services.limits.check_call("api-token")
        response = await client.get(
            "/api/v1/sites", headers={"Authorization": f"Bearer {HUB_TOKEN}"}
        )
        assert response.status_code == 429
        assert int(response.headers["Retry-After"]) >= 1
        local = await client.get("/api/v1/sites", scope_base={LOCAL_UID: 0})
        assert local.status_code == 200, "the machine's own people are not counted"
        wrong = {"Authorization": "Bearer nothing"}
        codes = [
            (await client.get("/api/v1/sites", headers=wrong)).status_code for _ in range(21)
        ]
        assert codes == [401] * 20 + [429]


async def test_an_open_event_stream_ends_with_the_session(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client):
        await bench.services.accounts.create("root", "admin", PASSWORD)
        await bench.services.accounts.create("ann", "viewer", PASSWORD)
        secret, _ = bench.services.desk.sign_in("ann", bench.clock.now_ms())
        cookie = {"Cookie": f"{COOKIE}={secret}"}
        bench.services.bus.publish("server", id="1")
        with trio.fail_after(10):
            async with client.request("/api/v1/events?since=run1-0", headers=cookie) as wire:
                await wire.send_complete()
                assert b'"id":"1"' in await wire.receive()
                await bench.services.accounts.change("ann", disabled=True)
                bench.services.bus.publish("server", id="2")
                while bench.services.bus.listeners:
                    await trio.lowlevel.checkpoint()
                await wire.disconnect()
                assert b'"id":"2"' not in bytes(wire.response_data)


async def test_a_backup_leaves_over_the_local_socket_alone(tmp_path: Path) -> None:
    async with api(tmp_path) as (_, client):
        status, body = await call(client, "GET", "/backup")
        assert (status, "own machine" in body["detail"]) == (403, True)
        local = await client.get("/api/v1/backup", scope_base={LOCAL_UID: 0})
        assert await local.get_data() == b"all of it"


async def test_only_an_admin_lets_a_hub_join(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client):
        for role, status in (("operator", 403), ("admin", 201)):
            _, text = await bench.services.api_tokens.create(role, role, None, "ann")
            bearer = {"Authorization": f"Bearer {text}"}
            asked = {"roles": ["hub"]}
            assert (await call(client, "POST", "/tokens", asked, **bearer))[0] == status
            assert (await call(client, "POST", "/tokens", {"site": "a"}, **bearer))[0] == 201


async def test_the_sign_in_page_says_when_to_come_again(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client):
        bench.services.limits._by_address = Throttle(1, 1000.0)
        form = {"account": "x", "password": "y"}
        assert (await client.post("/sign-in", form=form)).status_code == 401
        refused = await client.post("/sign-in", form=form)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1000")
