"""What a monitoring system reads: the Prometheus text format (version 0.0.4).

It knows no HTTP and no store. Rule: a label's value may be anything, a metric's name is ours.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

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


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
