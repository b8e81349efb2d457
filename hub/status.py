"""How the hub fares: one sentence, the problems worst first, who is connected."""

from dataclasses import dataclass
from typing import Any, Final

from hub.assets import AssetDesk
from hub.live import Connected, Live
from hub.restored import RestoreDesk
from hub.show import age
from hub.store import ReportStore
from hub.trust_desk import TrustDesk
from mesh.host.clock import SteadyClock
from mesh.hub_keys import HubKeys
from mesh.proto.evidence import problems as proven
from mesh.proto.register import Register
from mesh.rest.types import Status
from mesh.room import Room

GRACE_MS: Final = 15_000
"""A node may be away this long (a restart) before it counts as a problem."""
PROBLEMS_MAX: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusDesk:
    """Answers ``/status``."""

    node_id: str
    name: str
    build: str
    started_ms: int
    keys: HubKeys
    register: Register
    reports: ReportStore
    peers: Connected
    live: Live
    assets: AssetDesk
    clock: SteadyClock
    room: Room
    restored: RestoreDesk
    trust: TrustDesk

    def status(self) -> Status:
        """Return the status resource."""
        connected = self.peers.connected()
        reachable = self.live.reached()
        problems = self._problems(reachable)
        members = {node["id"]: node for node in self.reports.documents("node")}
        nodes = [
            n for n in members.values() if "node" in n["roles"] and n["status"] == "member"
        ]
        reached = sum(node["id"] in reachable for node in nodes)
        sites = len(self.reports.documents("site"))
        return Status(
            role="hub",
            name=self.name,
            node=self.node_id,
            site=None,
            healthy=not problems,
            sentence=(
                f"{called(self.name)} serves {_count(sites, 'site')} and reaches {reached} of"
                f" {_count(len(nodes), 'node')}"
            ),
            problems=problems,
            build=self.build,
            started_ms=self.started_ms,
            root_fingerprint=self.keys.root_fp.hex(),
            peers=[
                _peer(node, info, members.get(node, {}))
                for node, info in sorted(connected.items())
            ],
            services={"root_key": self.keys.root_state, "alarms": len(self.register.alarms)},
        )

    def _problems(self, reachable: set[str]) -> list[str]:
        now_ms, contacts = self.clock.now_ms(), self.reports.contacts()
        found = [said for said in (self.room.problem, self.clock.problem) if said]
        read_only = self.trust.read_only()
        found += [read_only] if read_only else []
        found += self.restored.problems()
        found += proven(self.restored.store.proofs)
        found += [
            f"two different {alarm.kind} records about {alarm.subject[:8] or 'the root'}:"
            " a key was copied or misused"
            for alarm in self.register.alarms[-3:]
        ]
        for node in self.reports.documents("node"):
            if node["status"] != "member" or node["id"] in {*reachable, self.node_id}:
                continue
            last_ms = contacts.get(node["id"])
            if now_ms - max(last_ms or 0, self.started_ms) < GRACE_MS:
                continue
            where = f" of site {node['site']}" if node["site"] else ""
            seen = f"last contact {age(last_ms, now_ms)}" if last_ms else "not seen by this hub"
            found.append(f"{node['name']}{where} is out of reach: {seen}")
        found += [
            f"hub {hub['name'] or hub['id'][:8]} waits for the root key to name its keys:"
            f" rackmesh hub root admit {hub['id']}"
            for hub in self.trust.waiting()
        ]
        found += [
            f"a node found other content behind {name} than what was named"
            for name in self.assets.conflicts()
        ]
        return found[:PROBLEMS_MAX]


def _peer(node: str, info: Any, document: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": node,
        "name": document.get("name") or node[:8],
        "role": ",".join(document.get("roles", [])),
        "site": document.get("site") or "",
        "since_ms": getattr(info, "since_ms", None),
        "address": getattr(info, "address", None),
    }


def called(name: str) -> str:
    """Return what to call a hub in a sentence."""
    return "hub" if name == "hub" else f"hub {name}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
