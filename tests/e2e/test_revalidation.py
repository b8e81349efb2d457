"""An origin gets other content: one node of the site asks, all nodes move, nobody waits."""

import hashlib
import json
import os
import time
from collections.abc import Generator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from demo_processes import rackmesh, wait_for

from tests.support.fleet import IMAGE, Fleet, fleet, small_image

PERIOD_S = 4
IMAGE_MIB = 3


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """A hub, two nodes at site two that ask origins every few seconds, and an origin."""
    with fleet(tmp_path_factory.mktemp("revalidation"), 1, IMAGE_MIB) as made:
        made.start_hub()
        for data in nodes(made):
            settings = f"[cache]\nrevalidate_s_max = {PERIOD_S}\n"
            (made.folder / f"{data.name}.toml").write_text(settings)
            made.join("two", data)
            made.run_node(data, *(("--subnet", "127.92.0.0/24") if data == made.two else ()))
        made.start_origin()
        for data in nodes(made):
            made.wait_linked(data)
        yield made


def nodes(pair: Fleet) -> list[Path]:
    return [pair.two, pair.folder / "node-two-b"]


def served(pair: Fleet, data: Path, asset: str) -> tuple[int, str]:
    """Ask a node's boot listener for an asset, as a machine does."""
    port = json.loads((data / "run" / "ports.json").read_text())["http"]
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", f"/assets/{asset}")
        answer = connection.getresponse()
        return answer.status, hashlib.sha256(answer.read()).hexdigest()
    finally:
        connection.close()


def asked(pair: Fleet) -> list[dict[str, Any]]:
    """Return the checks in the origin's own log."""
    lines = (pair.folder / "origin.bytes").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["method"] == "HEAD"]


def held(pair: Fleet, sha256: str) -> str | None:
    """Return the asset id once both nodes say the name is this content and hold it."""
    items = [pair.get(data, f"/assets/{IMAGE}") or {} for data in nodes(pair)]
    ids = {item.get("asset") for item in items if item.get("sha256") == sha256}
    path = f"assets/{next(iter(ids)).removeprefix('b3:')}" if ids != {None} and ids else ""
    both = len([item for item in items if item.get("sha256") == sha256]) == 2
    return next(iter(ids)) if both and path and whole(pair, sha256) else None


def whole(pair: Fleet, sha256: str) -> bool:
    return all(
        any(
            path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
            for path in (data / "cache" / "assets").rglob("*")
        )
        for data in nodes(pair)
    )


def site(pair: Fleet) -> dict[str, Any]:
    item = pair.get(pair.hub, f"/assets/{IMAGE}")
    return next(where for where in item["sites"] if where["site"] == "two")


@pytest.mark.slow
def test_both_nodes_move_to_what_the_origin_has_and_keep_what_they_had(pair: Fleet) -> None:
    rackmesh(
        "asset", "add", IMAGE, pair.origin_url(), "--revalidate", "2h", "--want", "two",
        "--data", pair.hub,
    )  # fmt: skip
    old_sha256 = pair.image_sha256
    old = wait_for("both hold it", lambda: held(pair, old_sha256), 60, pair.processes)
    assert pair.get(pair.hub, f"/assets/{IMAGE}")["revalidate_s"] == 7200
    wait_for("it was asked", lambda: len(asked(pair)) >= 1, 30, pair.processes)
    before, began = len(asked(pair)), time.monotonic()
    wait_for("and again", lambda: len(asked(pair)) >= before + 3, 40, pair.processes)
    periods = (time.monotonic() - began) / PERIOD_S
    assert len(asked(pair)) - before <= periods + 1, "one request in a period, of one node"
    assert asked(pair)[0]["condition"] is None, "nobody knew its tag yet"
    assert {(line["status"], bool(line["condition"])) for line in asked(pair)[1:]} == {
        (304, True)
    }
    wait_for("the hub tells when", lambda: site(pair)["checked_ms"], 20, pair.processes)
    assert site(pair)["stale"] is None

    fresh = small_image(pair.folder / "fresh.raw", IMAGE_MIB, seed=77)
    new_sha256 = hashlib.sha256(fresh.read_bytes()).hexdigest()
    os.replace(fresh, pair.image)
    new = wait_for("both hold the new", lambda: held(pair, new_sha256), 60, pair.processes)
    for data in nodes(pair):
        assert served(pair, data, new) == (200, new_sha256)
        assert served(pair, data, old) == (200, old_sha256), "for jobs that began with it"
    assert pair.origin_bytes() == 2 * pair.image.stat().st_size, "each content was read once"
    assert pair.get(pair.hub, "/status")["healthy"]

    pair.processes.stop("origin")
    wait_for("the hub tells that it is stale", lambda: site(pair)["stale"], 40, pair.processes)
    assert "its origin could not be asked" in site(pair)["stale"]
    said = rackmesh("asset", "list", "--data", pair.hub)
    assert "stale, its origin could not be asked" in said
    for data in nodes(pair):
        assert served(pair, data, new) == (200, new_sha256)
    pair.no_traceback()
