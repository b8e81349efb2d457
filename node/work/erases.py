"""The policy of an erase out of the site's rows, and its signed record into them.

It knows rows and who signs, nothing of how a disk is erased. Rules: a server's policy wins over
its site's, a row that cannot be read counts as the strictest reading there is (nothing may be
used, so the server is held) and never as the default; a record is written in the same
transaction as the job's row that claims the erase.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from mesh.errors import CodecError
from mesh.proto import tables
from mesh.proto.cleanup import (
    DEFAULT,
    OVERWRITE,
    UNPROVEN,
    CleanupPolicy,
    level_of,
    read_policy,
)
from mesh.proto.erase_record import record_id
from node.proto.agent_desk import AgentDesk, Command
from node.proto.erase_policy import ErasePlan
from node.work.rows import SiteRows

PIECE_BYTES: Final = 1 << 20
SITE_KEY: Final = "site"


class PolicyBroken(Exception):
    """A policy row cannot be read; ``str(error)`` is one sentence. Nothing was erased."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command of a job that has erased a disk, with what proves it."""

    command: Command
    plan: ErasePlan
    policy: CleanupPolicy
    evidence: Mapping[str, Any]
    began_ms: int


class Erases:
    """Policies and records of a site."""

    def __init__(
        self,
        rows: SiteRows,
        sign: Callable[[Mapping[str, Any]], bytes],
        ramdisk: Path | None = None,
    ) -> None:
        """``sign`` makes the wire form of a record; ``ramdisk`` is the initrd that we serve."""
        self._rows = rows
        self._sign = sign
        self._ramdisk = ramdisk
        self._digest: tuple[tuple[int, int], str] | None = None

    def policy_for(self, server_id: str) -> CleanupPolicy:
        """Return the policy of a server, else of the site, else the default."""
        for key in (server_id, SITE_KEY):
            row = self._rows.store.get(self._rows.scope, tables.CLEANUP, key)
            if row is None or row.body.get("removed_ms"):
                continue
            try:
                return read_policy(row.body)
            except CodecError as exc:
                raise PolicyBroken(
                    f"the cleanup policy of {key} cannot be read: {exc}; set it again"
                ) from exc
        return DEFAULT

    async def learn_ramdisk(self) -> None:
        """Hash the initrd that this node serves, when there is one that is not hashed yet."""
        place = self._ramdisk
        if place is None:
            return
        stamp = _stamp(place)
        if stamp is not None and (self._digest is None or self._digest[0] != stamp):
            digest = await trio.to_thread.run_sync(_sha256, place)
            if digest is not None:
                self._digest = (stamp, digest)

    def record(
        self, job: Mapping[str, Any], desk: AgentDesk, done: Finished, now: int
    ) -> tuple[str, dict[str, Any]]:
        """Return key and body of the ERASE_RECORD row of a finished command."""
        seen, asked = done.evidence, done.command.args
        method = str(seen.get("method") or OVERWRITE)
        level = level_of(method, rotational=done.plan.rotational)
        key = record_id(str(job["id"]), done.command.id)
        body: dict[str, Any] = {
            "id": key, "site": self._rows.site, "node": self._rows.node_id,
            "server": str(job.get("server")), "server_name": str(job.get("server_name")),
            "job": str(job["id"]), "author": str(job.get("author") or ""),
            "command": done.command.id, "attempt": int(job["attempt"]),
            "disk": {
                "model": str(seen.get("model") or ""),
                "serial": str(seen.get("serial") or seen.get("disk") or ""),
                "bytes": int(seen.get("bytes") or 0),
            },
            "method": method, "level": level, "wanted": done.policy.level,
            "fallback": done.plan.fallback, "attempts": list(seen.get("attempts") or ()),
            "said": dict(seen.get("said") or {}), "policy": done.policy.dump(),
            "samples": int(seen.get("samples") or 0),
            "markers": int(seen.get("markers") or 0),
            "telling": int(seen.get("telling") or 0),
            "pattern": str(seen.get("pattern") or "zeros"),
            "verified_bytes": int(seen.get("verified_bytes") or 0),
            "seed": str(asked.get("seed") or ""), "direct": seen.get("direct") is True,
            "proved": seen.get("direct") is True and not done.plan.old_agent,
            "on_hardware": "not proven" if method in UNPROVEN else "",
            "started_ms": done.began_ms, "ended_ms": now, "session_key": desk.key or "",
            "machine": {"uuid": desk.uuid or "", "serial": desk.serial or ""},
            "ramdisk": self._ramdisk_now(),
        }  # fmt: skip
        return key, {"signed": self._sign(body), "server": body["server"], "at_ms": now}

    def _ramdisk_now(self) -> str:
        """Return the digest of the initrd, empty when it is another one than was hashed."""
        known, place = self._digest, self._ramdisk
        return known[1] if known and place and _stamp(place) == known[0] else ""


def _stamp(place: Path) -> tuple[int, int] | None:
    try:
        found = place.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _sha256(place: Path) -> str | None:
    digest = hashlib.sha256()
    try:
        with place.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
    except OSError:
        return None
    return digest.hexdigest()
