"""What hub and node do alike about erases: policies set and shown, records listed and given.

It knows rows and the register, no disk. Rules: a policy is a row of its site, written by whom
an operator asks; a record is shown as it was signed, and one that does not hold is not shown.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import trio

from mesh.errors import CodecError
from mesh.proto import cleanup, tables
from mesh.proto.codec import unpack_map
from mesh.proto.erase_record import make_file, plain, proof_for, read_record
from mesh.proto.sign import RECORD_BYTES_MAX, split_record
from mesh.rest.calls import Call
from mesh.rest.erase_types import CleanupPolicy, EraseRecord, EraseRecordFile
from mesh.rest.lists import Page, page
from mesh.rest.problems import RequestProblem

SITE_KEY: Final = "site"
"""Key of the policy of the site itself."""


@dataclass(frozen=True, slots=True)
class EraseAlike:
    """The handlers over the rows of the sites that are carried here."""

    store: Any
    register: Any
    sites: Callable[[], list[str]]

    def handlers(self) -> dict[str, Any]:
        """Return the handlers by operation."""
        return {
            "listEraseRecords": self._list,
            "getEraseRecord": self._record,
            "getCleanupPolicy": self._site_policy,
            "setCleanupPolicy": self._set_site_policy,
            "getServerCleanupPolicy": self._server_policy,
            "setServerCleanupPolicy": self._set_server_policy,
        }

    # -- records ---------------------------------------------------------------------------

    def records(self) -> list[EraseRecord]:
        """Return all records; whose signature holds is asked when one is read."""
        found: list[EraseRecord] = []
        for site in self.sites():
            for row in self.store.rows(tables.site_scope(site), tables.ERASE_RECORD):
                try:
                    signed = split_record(row.body.get("signed") or b"")
                    body = unpack_map(signed.body, RECORD_BYTES_MAX)
                    found.append(_shown(body))
                except (CodecError, KeyError, TypeError, ValueError):
                    continue  # a member's nonsense is no record
        return found

    async def _list(self, call: Call) -> Page:
        await trio.lowlevel.checkpoint()
        assert call.plan is not None
        return page(call.plan, self.records())

    async def _record(self, call: Call) -> EraseRecordFile:
        await trio.lowlevel.checkpoint()
        asked = call.parts["record"]
        for site in self.sites():
            row = self.store.get(tables.site_scope(site), tables.ERASE_RECORD, asked)
            if row is not None:
                return self._whole(asked, row.body.get("signed"))
        raise RequestProblem("not-found", f"there is no erase record {asked[:60]!r}")

    def _whole(self, asked: str, signed: Any) -> EraseRecordFile:
        root_fp = self.register.root_fp
        try:
            body = read_record(signed if isinstance(signed, bytes) else b"", root_fp)
            proof = proof_for(self.register, str(body["node"]))
            file = make_file(signed, proof, root_fp).decode()
            return EraseRecordFile(signed=plain(body), file=file, **_shown(body))
        except (CodecError, KeyError, TypeError, ValueError) as exc:
            raise RequestProblem(
                "conflict", f"the erase record {asked[:60]} does not hold: {exc}"
            ) from exc

    # -- policies --------------------------------------------------------------------------

    async def _site_policy(self, call: Call) -> CleanupPolicy:
        await trio.lowlevel.checkpoint()
        return self._policy(self._site(call.parts["site"]), None)

    async def _server_policy(self, call: Call) -> CleanupPolicy:
        await trio.lowlevel.checkpoint()
        return self._policy(*self._server(call.parts["server"]))

    async def _set_site_policy(self, call: Call) -> CleanupPolicy:
        return await self._set(self._site(call.parts["site"]), None, call)

    async def _set_server_policy(self, call: Call) -> CleanupPolicy:
        return await self._set(*self._server(call.parts["server"]), call)

    async def _set(self, site: str, server: str | None, call: Call) -> CleanupPolicy:
        asked, now = call.body, self._policy(site, server)
        given = {
            name: value
            for name in ("level", "methods", "fallback", "samples")
            if (value := getattr(asked, name)) is not None
        }
        if asked.inherit and (server is None or given):
            raise RequestProblem(
                "bad-request", "inherit is for a server, and excludes all other fields"
            )
        try:
            policy = cleanup.read_policy({**_fields(now), **given})
        except CodecError as exc:
            raise RequestProblem("bad-request", f"this is no cleanup policy: {exc}") from exc

        def write(tx: Any) -> None:
            body = {**policy.dump(), "by": call.who, "at_ms": tx.now_ms}
            if asked.inherit:
                body["removed_ms"] = tx.now_ms
            tx.put(tables.site_scope(site), tables.CLEANUP, server or SITE_KEY, body)

        await self.store.write(write)
        return self._policy(site, server)

    def _policy(self, site: str, server: str | None) -> CleanupPolicy:
        body: Mapping[str, Any] = {}
        source = "default"
        for key, name in ((server, "server"), (SITE_KEY, "site")):
            row = key and self.store.get(tables.site_scope(site), tables.CLEANUP, key)
            if row is not None and row != "" and not row.body.get("removed_ms"):
                body, source = row.body, name
                break
        try:
            policy = cleanup.read_policy(body)
        except CodecError as exc:
            raise RequestProblem(
                "conflict", f"the cleanup policy of the {source} cannot be read: {exc}"
            ) from exc
        by, at_ms = body.get("by"), body.get("at_ms")
        return CleanupPolicy(
            site=site, server=server, source=source, level=policy.level,
            methods=list(policy.methods), fallback=list(policy.fallback),
            samples=policy.samples, by=by if isinstance(by, str) else None,
            changed_ms=at_ms if isinstance(at_ms, int) else None,
        )  # fmt: skip

    def _site(self, name: str) -> str:
        if name not in self.sites():
            raise RequestProblem("not-found", f"there is no site {name[:60]!r} here")
        return name

    def _server(self, name: str) -> tuple[str, str]:
        found = [
            (site, str(row.key))
            for site in self.sites()
            for row in self.store.rows(tables.site_scope(site), tables.SERVER)
            if name in (row.key, row.body.get("name"))
        ]
        if not found:
            raise RequestProblem("not-found", f"there is no server {name[:60]!r}")
        if len(found) > 1:
            where = ", ".join(sorted(site for site, _ in found))
            raise RequestProblem(
                "conflict",
                f"server {name[:60]!r} exists at {where}; give its id",
            )
        return found[0]


def _fields(policy: CleanupPolicy) -> dict[str, Any]:
    return {name: policy[name] for name in ("level", "methods", "fallback", "samples")}


def _shown(body: Mapping[str, Any]) -> EraseRecord:
    disk = body["disk"]
    texts = {
        name: str(body[name])[:256]
        for name in ("id", "site", "server", "server_name", "job", "author", "node", "method",
                     "level", "wanted", "on_hardware")
    }  # fmt: skip
    numbers = {
        name: int(body[name]) for name in ("samples", "markers", "started_ms", "ended_ms")
    }
    shown: EraseRecord = {
        **texts, **numbers, "serial": str(disk["serial"])[:256],  # type: ignore[typeddict-item]
        "disk": {"model": str(disk["model"])[:256], "serial": str(disk["serial"])[:256],
                 "bytes": int(disk["bytes"])},
        "fallback": body["fallback"] is True, "proved": body["proved"] is True,
    }  # fmt: skip
    return shown
