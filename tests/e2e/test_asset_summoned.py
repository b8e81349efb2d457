"""Machines ask a node for what it does not have: it is brought there once, however many ask."""

import hashlib
import json
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import pytest
from demo_processes import wait_for

from tests.support.fleet import Fleet, fleet


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """A hub and two sites with a node each; site one has an image, two does not want it."""
    with fleet(tmp_path_factory.mktemp("summon"), servers=1, image_mib=16) as made:
        made.start_sites()
        made.register_image()
        yield made


def get(pair: Fleet, path: str) -> tuple[int, dict[str, str], bytes]:
    """Ask the boot listener of site two, as a machine does."""
    port = json.loads((pair.two / "run" / "ports.json").read_text())["http"]
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


@pytest.mark.slow
def test_an_image_that_many_ask_for_crosses_the_uplink_once(pair: Fleet) -> None:
    asset = wait_for(
        "site two knows the name",
        lambda: (pair.get(pair.two, "/assets/demo-os") or {}).get("asset"),
        30,
        pair.processes,
    )
    assert get(pair, f"/assets/b3:{'0' * 64}")[0] == 404, "what no hub has signed never comes"
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: get(pair, f"/assets/{asset}"), range(20)))
    for status, headers, body in answers:
        assert status == 200
        assert hashlib.sha256(body).hexdigest() == pair.image_sha256
        assert headers["ETag"] == f'"{asset.partition(":")[2]}"'

    def held() -> dict[str, int] | None:
        rows = pair.get(pair.hub, "/assets/demo-os")["sites"]
        return next((r for r in rows if r["site"] == "two" and r["state"] == "verified"), None)

    row = wait_for("the hub hears that two holds it", held, 30, pair.processes)
    assert row["peer_bytes"] == pair.image.stat().st_size
    assert pair.origin_bytes() == pair.image.stat().st_size
    status, headers, _ = get(pair, f"/assets/{asset}")
    assert status == 200
    assert headers["Repr-Digest"].startswith("sha-256=:")
    pair.no_traceback()
