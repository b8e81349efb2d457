"""A site's uplink under a cap, with a real node: slow as told, and free again when unwanted."""

from collections.abc import Generator
from typing import Any

import pytest
from demo_processes import rackmesh, wait_for

from tests.support.fleet import IMAGE, Fleet, fleet, one_sentence, run

pytestmark = pytest.mark.slow
CAP = "[cache]\nuplink_mbit = 50\nuplink_hours = ['00:00-00:00 2']\n"


@pytest.fixture
def thin(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """A hub, a node whose uplink may carry 2 Mbit/s at any hour, and the origin."""
    with fleet(tmp_path_factory.mktemp("thin"), image_mib=16) as made:
        made.start_hub()
        made.join("one", made.one)
        (made.folder / f"{made.one.name}.toml").write_text(CAP)
        made.run_node(made.one)
        made.start_origin()
        made.wait_linked(made.one)
        yield made


def here(thin: Fleet) -> dict[str, Any]:
    item = thin.get(thin.hub, f"/assets/{IMAGE}")
    found = [where for where in item["sites"] if where["site"] == "one"] if item else []
    return dict(found[0]) if found else {"state": None, "origin_bytes": 0}


def test_a_capped_read_is_slow_and_ends_when_nobody_wants_it(thin: Fleet) -> None:
    size = thin.image.stat().st_size
    rackmesh("asset", "add", IMAGE, thin.origin_url(), "--data", thin.hub)
    rackmesh("asset", "want", IMAGE, "one", "--data", thin.hub)
    wait_for("it is read", lambda: here(thin)["state"] == "fetching", 30, thin.processes)
    rackmesh("asset", "unwant", IMAGE, "one", "--data", thin.hub)
    wait_for("it is let go", lambda: here(thin)["state"] == "absent", 30, thin.processes)
    assert here(thin)["origin_bytes"] < size / 2, "at 2 Mbit/s it is not there in seconds"
    assert "Traceback" not in thin.log(thin.one.name)


def test_what_is_no_cap_is_refused_in_one_sentence(thin: Fleet) -> None:
    config = thin.folder / "wrong.toml"
    for line, words in (
        ("uplink_mbit = -3", "uplink_mbit must be 0"),
        ("uplink_hours = ['8-18 2']", "HH:MM-HH:MM MBIT"),
    ):
        config.write_text(f"[cache]\n{line}\n")
        found = run("node", "run", "--config", config, "--data", thin.two)
        assert found.code == 2
        assert words in one_sentence(found)
