"""One member as a process of its own: links and failure detector, for tests that kill it.

``python -m tests.support.watcher LABEL LABELS...`` prints ``port N``, reads the ports of all
labels from one line of its input, and then prints ``down LABEL`` and ``up LABEL``.
"""

import sys

import trio

from mesh.detection import Detection
from tests.support.link_mesh import Place, StepClock
from tests.support.trust import Org, identity


def say(*words: object) -> None:
    print(*words, flush=True)


async def watch(me: str, labels: list[str]) -> None:
    org = Org()
    for label in labels:
        org.admit(label)
    names = {identity(label).node_id: label for label in labels}
    place = Place(org, me)
    detection = Detection(
        place.id, b"site", place.roster, names.keys, lambda: place.addresses, StepClock()
    )
    place.peers._services = {"detect": detection.service}
    detection.use_udp(place.peers.udp)
    async with trio.open_nursery() as nursery:
        await nursery.start(detection.run)
        await nursery.start(place.peers.run)
        say("port", place.peers.port)
        ports = (await trio.to_thread.run_sync(sys.stdin.readline)).split()
        for label, port in zip(labels, ports, strict=True):
            if label != me:
                place.addresses[identity(label).node_id] = [("127.0.0.1", int(port))]
        place.peers.look_again()
        nursery.start_soon(report_links, place, names)
        shown: set[str] = set()
        while True:
            version = detection.version
            now = set(detection.unreachable())
            for node in sorted(now - shown):
                say("down", names[node])
            for node in sorted(shown - now):
                say("up", names[node])
            shown = now
            await detection.wait_past(version)


async def report_links(place: Place, names: dict[str, str]) -> None:
    while len(place.peers.connected()) < len(names) - 1:
        await place.peers.wait_past(place.peers.version)
    say("linked")


if __name__ == "__main__":
    trio.run(watch, sys.argv[1], sys.argv[2:])
