"""Two nodes at one site: either does the work, one of them suffices, and both say the same."""

import json
import socket
from collections.abc import Generator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from demo_processes import rackmesh, wait_for

from mesh.proto.rendezvous import owner
from node.proto import dhcp_options as opt
from node.proto.dhcp import encode
from tests.support.boot_site import IPXE, packet
from tests.support.fleet import IMAGE, Fleet, fleet, small_image

SERVERS = 3
IMAGE_MIB = 3
ROUNDS_MAX = 6
RELAY = "127.92.0.9"

numbers = count(1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """A hub, a node at site one, two nodes and a rack at site two, three servers accepted."""
    with fleet(tmp_path_factory.mktemp("pair"), SERVERS, IMAGE_MIB) as made:
        made.disk_mib = 16
        made.start_sites()
        made.join("two", second(made))
        made.run_node(second(made))
        made.wait_linked(second(made))
        wait_for("the two are linked", lambda: near(made), 30, made.processes)
        made.accept(SERVERS)
        yield made


def second(pair: Fleet) -> Path:
    """The data folder of the second node at site two."""
    return pair.folder / "node-two-b"


def near(pair: Fleet) -> bool:
    """Say whether the first node at site two is linked to the second."""
    status = pair.status(pair.two)
    return bool(status and any(p["name"] == second(pair).name for p in status["peers"]))


def node_ids(pair: Fleet) -> list[str]:
    """The node ids of site two."""
    return [n["id"] for n in pair.get(pair.hub, "/nodes") if n["site"] == "two"]


def upload(pair: Fleet) -> str:
    """Register an image of its own content, by upload and wanted nowhere; return its name."""
    number = next(numbers)
    path = small_image(pair.folder / f"im{number}.raw", IMAGE_MIB, seed=100 + number)
    rackmesh("asset", "add", f"im{number}", path, "--data", pair.hub)
    return f"im{number}"


def free(pair: Fleet) -> None:
    """Make all servers available."""
    names = [f"srv{number}" for number in range(1, SERVERS + 1)]
    busy = [name for name in names if pair.server(name)["state"] != "available"]
    for job in [pair.order("server", "release", name, "--yes") for name in busy]:
        pair.succeeded(job)


def test_a_deploy_succeeds_on_either_node_with_an_image_that_its_site_does_not_want(
    pair: Fleet,
) -> None:
    nodes = node_ids(pair)
    seen: set[tuple[str, bool]] = set()  # (runner, whether it owns the image's name)
    for _ in range(ROUNDS_MAX):
        free(pair)
        images = [upload(pair) for _ in range(SERVERS)]
        jobs = [pair.deploy_order(f"srv{n}", image) for n, image in enumerate(images, 1)]
        for image, job in zip(images, jobs, strict=True):
            item = pair.succeeded(job)
            assert not [s["name"] for s in item["steps"] if s["solo"]]
            seen.add((item["runner"], owner(nodes, image) == item["runner"]))
        if {runner for runner, _ in seen} == set(nodes) and {o for _, o in seen} == {0, 1}:
            break
    assert {runner for runner, _ in seen} == set(nodes)
    assert {owned for _, owned in seen} == {False, True}


def holds(pair: Fleet, data: Path) -> bool:
    """Say whether a node's cache has the image's bytes."""
    want = pair.image.read_bytes()
    found = [p for p in (data / "cache" / "assets").rglob("*") if p.is_file()]
    return any(p.stat().st_size == len(want) and p.read_bytes() == want for p in found)


def residency(pair: Fleet, site: str) -> dict[str, Any] | None:
    item = pair.get(pair.hub, f"/assets/{IMAGE}")
    return next((r for r in item["sites"] if r["site"] == site), None)


def test_the_origin_is_read_once_and_the_second_node_takes_the_image_inside_the_site(
    pair: Fleet,
) -> None:
    rackmesh(
        "asset", "add", IMAGE, pair.origin_url(), "--want", "two", "--data", pair.hub
    )  # fmt: skip
    for data in (pair.two, second(pair)):
        wait_for("both hold it", lambda data=data: holds(pair, data), 60, pair.processes)
    size = pair.image.stat().st_size
    assert pair.origin_bytes() == size

    def told() -> bool:
        found = residency(pair, "two")
        counts = found and (found["origin_bytes"], found["peer_bytes"], found["near_bytes"])
        return bool(counts == (size, size, size))

    wait_for("the hub tells who gave the bytes", told, 30, pair.processes)
    again = rackmesh("asset", "show", IMAGE, "--data", pair.hub)
    assert pair.image_sha256 in again


def discover() -> bytes:
    """What the relay passes on of an unknown machine's iPXE; answers go back to its port."""
    options = {**IPXE, opt.RELAY_AGENT: bytes((opt.RELAY_SOURCE_PORT, 0))}
    return encode(packet(mac="52:54:00:77:00:99", giaddr=RELAY, options=options))


def test_both_nodes_answer_one_discover_with_the_same_bytes(pair: Fleet) -> None:
    answers = []
    with socket.socket(type=socket.SOCK_DGRAM) as relay:
        relay.bind((RELAY, 0))
        relay.settimeout(10)
        for data in (pair.two, second(pair)):
            ports = json.loads((data / "run" / "ports.json").read_text())
            relay.sendto(discover(), (ports["address"], ports["dhcp"]))
            answers.append(relay.recv(2000))
    assert answers[0] == answers[1]
    assert b"/boot/v1/script?mac=" in answers[0]


def test_one_node_goes_on_with_the_site_while_the_other_is_stopped(pair: Fleet) -> None:
    free(pair)
    image = upload(pair)
    pair.processes.stop(second(pair).name)
    pair.succeeded(pair.deploy_order("srv1", image), 120)
    assert pair.server("srv1")["state"] == "active"
    pair.run_node(second(pair))
    pair.wait_linked(second(pair))
    wait_for("the two are linked again", lambda: near(pair), 45, pair.processes)
    pair.succeeded(pair.deploy_order("srv2", upload(pair)))
    pair.no_traceback()
