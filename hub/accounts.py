"""Accounts of people: rows that all hubs of the organisation share (scope ``hubs``).

It knows no HTTP and no session. Rules: a password stands only as its argon2id hash; every
change gives the row a new ``stamp``, and a session of another stamp is over, here and at every
hub that the row reaches; no change may leave the organisation without an enabled admin, which
is checked in the transaction that makes it.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hub.errors import BadRequest, Conflict, NotFound
from hub.passwords import Passwords
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.ports import StorePort, TxPort
from mesh.proto.ids import NAME_PATTERN
from mesh.proto.tables import ACCOUNT, HUBS
from mesh.rest import types
from mesh.rest.roles import ROLES, Role

ACCOUNTS_MAX: Final = 1000
STAMP_BYTES: Final = 16
log = get_log("accounts")
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Account:
    """A person who may sign in."""

    name: str
    role: Role
    disabled: bool
    created_ms: int
    changed_ms: int
    stamp: bytes = field(repr=False)
    password: str = field(repr=False)

    def shown(self) -> types.Account:
        """Return what the API says of it."""
        return types.Account(
            name=self.name, role=self.role, disabled=self.disabled,
            created_ms=self.created_ms, changed_ms=self.changed_ms,
        )  # fmt: skip


class Accounts:
    """All accounts, read from rows and written as rows."""

    def __init__(self, store: StorePort, passwords: Passwords, clock: Clock) -> None:
        self._store, self._passwords, self._clock = store, passwords, clock

    def find(self, name: str) -> Account | None:
        """Return an account, enabled or not."""
        row = self._store.get(HUBS, ACCOUNT, name)
        return None if row is None else _read(row.key, row.body)

    def list(self) -> list[Account]:
        """Return all accounts by name."""
        rows = self._store.rows(HUBS, ACCOUNT)
        found = [_read(row.key, row.body) for row in rows]
        return sorted((a for a in found if a is not None), key=lambda account: account.name)

    def find_or_fail(self, name: str) -> Account:
        """Return an account; NotFound when there is none."""
        found = self.find(name)
        if found is None:
            raise NotFound(f"there is no account {name[:80]!r}")
        return found

    async def check_password(self, name: str, password: str) -> Account | None:
        """Return the enabled account with this name and password; raises TooMany."""
        account = self.find(name)
        stored = account.password if account is not None and not account.disabled else None
        return account if await self._passwords.check(stored, password) else None

    async def create(self, name: str, role: str, password: str) -> Account:
        """Make an account; BadRequest or Conflict otherwise."""
        if not NAME_PATTERN.match(name):
            raise BadRequest(
                "an account's name is 1 to 63 letters, digits, dots, dashes, underscores,"
                f" not {name[:80]!r}"
            )
        hashed = await self._passwords.hash(password)
        return await self.adopt(name, _role(role), hashed)

    async def adopt(self, name: str, role: Role, hashed: str) -> Account:
        """Make an account of which only the hash is known."""
        now_ms = self._clock.now_ms()

        def put(tx: TxPort) -> None:
            if tx.get(HUBS, ACCOUNT, name) is not None:
                raise Conflict(f"there is an account {name!r} already")
            if len(tx.rows(HUBS, ACCOUNT)) >= ACCOUNTS_MAX:
                raise Conflict(f"there are {ACCOUNTS_MAX} accounts already; remove some first")
            body = {
                "name": name, "role": role, "password": hashed, "disabled": False,
                "created_ms": now_ms, "changed_ms": now_ms, "stamp": os.urandom(STAMP_BYTES),
            }  # fmt: skip
            tx.put(HUBS, ACCOUNT, name, body)

        await self._store.write(put)
        log.info("account made", user=name, role=role)
        return self.find_or_fail(name)

    async def set_password(self, name: str, password: str) -> Account:
        """Change a password; ends the account's sessions."""
        self.find_or_fail(name)
        hashed = await self._passwords.hash(password)
        return await self._change(name, {"password": hashed}, "password changed")

    async def change(
        self, name: str, *, role: str | None = None, disabled: bool | None = None
    ) -> Account:
        """Change role or state; ends the account's sessions unless nothing changes."""
        fields: Body = {} if role is None else {"role": _role(role)}
        if disabled is not None:
            fields["disabled"] = disabled
        return await self._change(name, fields, "account changed")

    async def remove(self, name: str) -> None:
        """Delete an account."""
        await self._write(name, lambda _: None)
        log.info("account removed", user=name)

    async def _change(self, name: str, fields: Body, what: str) -> Account:
        now_ms = self._clock.now_ms()

        def changed(old: Mapping[str, Any]) -> Body:
            new = {**old, **fields}
            if new != old:
                new |= {"changed_ms": now_ms, "stamp": os.urandom(STAMP_BYTES)}
            return new

        await self._write(name, changed)
        log.info(what, user=name)
        return self.find_or_fail(name)

    async def _write(self, name: str, new: Callable[[Mapping[str, Any]], Body | None]) -> None:
        """Replace an account's row (None deletes it) unless that locks everybody out."""

        def put(tx: TxPort) -> None:
            old = tx.get(HUBS, ACCOUNT, name)
            if old is None:
                raise NotFound(f"there is no account {name[:80]!r}")
            body = new(old.body)
            others = any(_rules(row.body) for row in tx.rows(HUBS, ACCOUNT) if row.key != name)
            if _rules(old.body) and not others and not (body is not None and _rules(body)):
                raise Conflict(f"{name} is the last enabled admin; make another one first")
            if body is None:
                tx.delete(HUBS, ACCOUNT, name)
            else:
                tx.put(HUBS, ACCOUNT, name, body)

        await self._store.write(put)


def _rules(body: Mapping[str, Any]) -> bool:
    return body.get("role") == "admin" and not body.get("disabled")


def _role(text: str) -> Role:
    for role in ROLES:
        if text == role:
            return role
    raise BadRequest(f"role must be one of {', '.join(ROLES)}, not {text[:60]!r}")


def _read(name: str, body: Mapping[str, Any]) -> Account | None:
    """Return what a row says; None for one that no hub of today writes."""
    match body:
        case {"role": "viewer" | "operator" | "admin" as role, "password": str(password),
              "stamp": bytes(stamp)}:  # fmt: skip
            return Account(
                name=name, role=role, disabled=bool(body.get("disabled")),
                created_ms=_number(body.get("created_ms")),
                changed_ms=_number(body.get("changed_ms")), stamp=stamp, password=password,
            )  # fmt: skip
        case _:
            return None


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
