"""The text that a monitoring system scrapes."""

from mesh.rest.metrics import Metric, by_state, daemon, gauge, text
from mesh.rest.types import Status


def test_metrics_have_help_type_and_escaped_labels() -> None:
    odd = Metric("rackmesh_x", "gauge", "An x.", [({"b": 'say "hi"\\\n', "a": "1"}, 2.5)])
    assert text([odd, gauge("rackmesh_y", "A y.", 3)]).splitlines() == [
        "# HELP rackmesh_x An x.",
        "# TYPE rackmesh_x gauge",
        r'rackmesh_x{a="1",b="say \"hi\"\\\n"} 2.5',
        "# HELP rackmesh_y A y.",
        "# TYPE rackmesh_y gauge",
        "rackmesh_y 3",
    ]


def test_a_daemon_tells_its_build_age_and_troubles() -> None:
    status = Status(
        role="hub", name="h", node="n", site=None, healthy=False, sentence="", problems=["a"],
        build="0.1.0", started_ms=1_000, root_fingerprint="", peers=[], services={},
    )  # fmt: skip
    said = text([*daemon(status, 61_500, 4096), by_state("s", "S.", {"active": 2})])
    for line in (
        'rackmesh_build_info{build="0.1.0",role="hub"} 1', "rackmesh_healthy 0",
        "rackmesh_problems 1", "rackmesh_uptime_seconds 60.5",
        "process_resident_memory_bytes 4096", 's{state="active"} 2',
    ):  # fmt: skip
        assert line in said.splitlines()
