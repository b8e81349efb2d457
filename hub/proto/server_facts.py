"""What a server's jobs say about it beyond its row: power, boot, phone-in, with their ages.

It knows no BMC and no clock. Rule: a fact is what a finished step of a job has seen and when;
what no step has seen is unknown, and an age goes with everything that is known.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that was seen: in words, when, and in which step of which job."""

    words: str
    at_ms: int
    step: str
    job: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen last of each."""

    power: Fact | None
    boot: Fact | None
    phone_in: Fact | None


def facts(jobs: Iterable[Body]) -> Facts:
    """Return what the steps of a server's jobs saw last."""
    power: Fact | None = None
    boot: Fact | None = None
    phone: Fact | None = None
    for at_ms, step, job in sorted(_done(jobs), key=lambda seen: seen[0]):
        evidence = step["evidence"]
        if isinstance(evidence.get("power"), str):
            power = Fact(evidence["power"], at_ms, step["name"], job["id"])
        if isinstance(evidence.get("boot"), str):
            boot = Fact(f"next from {evidence['boot']}", at_ms, step["name"], job["id"])
        match step["name"]:
            case "ramdisk reports":
                boot = Fact("ran the ramdisk", at_ms, step["name"], job["id"])
                power = Fact("on", at_ms, step["name"], job["id"])
            case "phone-in":
                boot = Fact("booted from its disk", at_ms, step["name"], job["id"])
                phone = Fact("phoned in", at_ms, step["name"], job["id"])
                power = Fact("on", at_ms, step["name"], job["id"])
            case "power off":
                power = Fact("off", at_ms, step["name"], job["id"])
            case _:
                pass
    return Facts(power, boot, phone)


def _done(jobs: Iterable[Body]) -> Iterator[tuple[int, Body, Body]]:
    for job in jobs:
        for step in job["steps"]:
            if step["state"] == "done" and isinstance(step["ended_ms"], int):
                yield step["ended_ms"], step, job
