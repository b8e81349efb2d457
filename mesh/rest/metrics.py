"""What a monitoring system reads: the Prometheus text format (version 0.0.4).

It knows no HTTP and no store. Rule: a label's value may be anything, a metric's name is ours.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.rest.mesh_types import Mesh, MeshLink
from mesh.rest.types import Status

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric with its samples: pairs of labels and value."""

    name: str
    kind: str  # gauge | counter
    help: str
    samples: Iterable[tuple[Mapping[str, str], float]]


def text(metrics: Iterable[Metric]) -> str:
    """Return the metrics as they are scraped."""
    lines: list[str] = []
    for metric in metrics:
        assert metric.name.isidentifier()
        lines.append(f"# HELP {metric.name} {metric.help}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        for labels, value in metric.samples:
            shown = ",".join(f'{key}="{_escaped(labels[key])}"' for key in sorted(labels))
            lines.append(f"{metric.name}{f'{{{shown}}}' if shown else ''} {value:.10g}")
    return "\n".join(lines) + "\n"


def gauge(name: str, about: str, value: float) -> Metric:
    """Return a gauge of one sample."""
    return Metric(name, "gauge", about, [({}, value)])


def by_state(name: str, about: str, states: Mapping[str, int]) -> Metric:
    """Return a gauge with a sample for each state."""
    return Metric(name, "gauge", about, [({"state": s}, n) for s, n in sorted(states.items())])


def daemon(status: Status, now_ms: int, resident_bytes: int) -> list[Metric]:
    """Return what every daemon tells of itself."""
    build: dict[str, Any] = {"build": status["build"], "role": status["role"]}
    return [
        Metric("rackmesh_build_info", "gauge", "Build and role of this daemon.", [(build, 1)]),
        gauge("rackmesh_healthy", "1 when nothing is wrong.", int(status["healthy"])),
        gauge("rackmesh_problems", "Problems that status names.", len(status["problems"])),
        gauge("rackmesh_peers_connected", "Members linked now.", len(status["peers"])),
        gauge("rackmesh_uptime_seconds", "Since the start.",
              (now_ms - status["started_ms"]) / 1000),
        gauge("process_resident_memory_bytes", "Resident memory.", resident_bytes),
    ]  # fmt: skip


LINKS_MAX: Final = 200
"""Links that have samples of their own; of more only the sums are told."""


def mesh(seen: Mesh, now_ms: int) -> list[Metric]:
    """Return what a member sees of the mesh."""
    links = seen["links"]
    shown = links if len(links) <= LINKS_MAX else []
    paths = Counter(link["path"] for link in links)
    ages = [now_ms - at for link in links if (at := link["synced_ms"]) is not None]
    trips = [(link, link["round_trip_ms"]) for link in shown]
    synced = [(link, link["synced_ms"]) for link in shown]
    bytes_ = [(link, way, link[way]) for link in shown for way in ("bytes_in", "bytes_out")]
    return [
        Metric("rackmesh_mesh_links", "gauge", "Links by kind of path.",
               [({"path": path}, number) for path, number in sorted(paths.items())]),
        gauge("rackmesh_mesh_unreachable", "Members out of reach that should be in it.",
              len(seen["away"])),
        gauge("rackmesh_mesh_sets", "Replicated sets held.", seen["sets"]),
        gauge("rackmesh_mesh_sync_age_max_seconds",
              "Age of the oldest last anti-entropy of all links.", max(ages, default=0) / 1000),
        Metric("rackmesh_mesh_link_round_trip_seconds", "gauge", "Last measured round trip.",
               [(_peer(link), trip / 1000) for link, trip in trips if trip is not None]),
        Metric("rackmesh_mesh_link_bytes", "counter", "Bytes since the link is up.",
               [({**_peer(link), "way": way.removeprefix("bytes_")}, number)
                for link, way, number in bytes_]),
        Metric("rackmesh_mesh_link_sync_age_seconds", "gauge",
               "Age of the last completed anti-entropy.",
               [(_peer(link), (now_ms - at) / 1000) for link, at in synced if at is not None]),
        Metric("rackmesh_mesh_events", "counter", "What links and replication counted.",
               [({"event": name}, count) for name, count in sorted(seen["counters"].items())]),
    ]  # fmt: skip


def _peer(link: MeshLink) -> dict[str, str]:
    return {"peer": link["node"], "name": link["name"], "site": link["site"]}


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
