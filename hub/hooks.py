"""Hooks at the hub: kept in the fleet's rows, checked before they are.

It knows rows and calls nobody. Rules: nothing is kept that no order could carry; a hook names
its secret by id, whose value this desk never sees.
"""

from collections.abc import Mapping
from typing import Any, Final

from hub.errors import BadRequest, Conflict, NotFound
from mesh.errors import CodecError
from mesh.host.log import get_log
from mesh.proto import tables
from mesh.proto.hook import Hook, in_force, read_hook
from mesh.rest import hook_types
from mesh.store import MeshStore, Tx

DEFINED_MAX: Final = 200
log = get_log("hooks")


class HookDesk:
    """Takes and shows hooks."""

    def __init__(self, store: MeshStore) -> None:
        self._store = store

    def list(self) -> list[hook_types.Hook]:
        """Return what is in force."""
        rows = self._rows()
        return [_shown(hook, rows[name]) for name, hook in hooks_of(self._store).items()]

    def get(self, name: str) -> hook_types.Hook:
        """Return one; NotFound when there is none."""
        hook = hooks_of(self._store).get(name)
        if hook is None:
            raise NotFound(f"there is no hook {name[:60]!r}; see hook list")
        return _shown(hook, self._rows()[name])

    async def set(self, name: str, asked: Mapping[str, Any], by: str) -> hook_types.Hook:
        """Make or change one; orders that were given before keep what it was then."""
        try:
            hook = read_hook({**asked, "name": name})
        except CodecError as exc:
            raise BadRequest(f"this is no hook: {exc}") from exc
        sites = {row.key for row in self._store.rows(tables.FLEET, tables.SITE)}
        if hook.site is not None and hook.site not in sites:
            raise BadRequest(f"there is no site {hook.site}; see site list")

        def write(tx: Tx) -> dict[str, Any]:
            rows = {row.key: row.body for row in tx.rows(tables.FLEET, tables.HOOK)}
            there = [key for key, body in rows.items() if not body.get("removed_ms")]
            if name not in there and len(there) >= DEFINED_MAX:
                raise Conflict(f"there are {DEFINED_MAX} hooks already")
            made = rows.get(name, {}).get("created_ms", tx.now_ms)
            body = {**hook.body(), "by": by, "created_ms": made, "changed_ms": tx.now_ms}
            tx.put(tables.FLEET, tables.HOOK, name, body)
            return body

        body = await self._store.write(write)
        log.info("hook set", name=name, user=by)
        return _shown(hook, body)

    async def remove(self, name: str) -> hook_types.Hook:
        """Take one away; orders that carry it keep it."""
        shown = self.get(name)

        def write(tx: Tx) -> None:
            body = {"name": name, "removed_ms": tx.now_ms}
            tx.put(tables.FLEET, tables.HOOK, name, body)

        await self._store.write(write)
        log.info("hook removed", name=name)
        return shown

    def _rows(self) -> dict[str, dict[str, Any]]:
        return {row.key: row.body for row in self._store.rows(tables.FLEET, tables.HOOK)}


def hooks_of(store: MeshStore) -> dict[str, Hook]:
    """Return the hooks that are in force, by name in order."""
    return in_force((row.key, row.body) for row in store.rows(tables.FLEET, tables.HOOK))


def _shown(hook: Hook, row: Mapping[str, Any]) -> hook_types.Hook:
    return hook_types.Hook(
        name=hook.name, point=hook.point, kind=hook.kind, site=hook.site, secret=hook.secret,
        url=hook.url, pin=hook.pin, command=hook.command, host=hook.host, port=hook.port,
        user=hook.user, host_key=hook.host_key, playbook=hook.playbook, asset=hook.asset,
        connection=hook.connection, repeatable=hook.repeatable, on_failure=hook.on_failure,
        timeout_s=hook.timeout_s, tries=hook.tries,
        changed_ms=int(row.get("changed_ms") or 0), by=row.get("by"),
    )  # fmt: skip
