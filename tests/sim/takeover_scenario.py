"""takeover: a job's runner is killed at every boundary; another node takes it to its end.

Real plans (accept, deploy, release) on the real job machine and leases, in sites of three and
two nodes, with a Redfish and an IPMI BMC. A clean run counts the boundaries of the runner:
before and after each durable write, message to the device, receipt, look and act. Then the
runner is killed at each of them, for good. Every job must succeed, and with a flash in its plan
never flash twice (such a job may park: nobody can know).

Figures: ``kills``, ``completed`` (at another node; ``ended_before``: the job was over for all
when its runner died), ``resume_p95_s`` from the kill to the first effect of the next runner, of
three nodes with Redfish; ``resume_p95_ipmi_s``, of IPMI and of sites of two. Each seed draws
the delays anew. Nothing is lost, as links are TCP, but one message in twenty is up to 2 s late;
a BMC answers within 0.8 s.
"""

import argparse
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from node.proto.plan import Step, plan
from scripts.lib.simulate import over_seeds
from tests.sim.detection_scenario import at_share
from tests.sim.work_site import OURS, Site

SEEDS: Final = 1
KINDS: Final = ((3, True), (3, False), (2, True), (2, False))
ASSET: Final = "b3:" + "ab" * 32
PARAMS: Final[dict[str, dict[str, Any]]] = {
    "server.accept": {"machine": "52:54:00:00:00:01", "name": "srv1", "server": "s"},
    "server.deploy": {"server": "s", "asset": ASSET, "image": "demo", "hostname": "web1"},
    "server.release": {"server": "s"},
    "flash": {},
}
RESUME_S_MAX: Final = 20.0
RESUME_LONG_S_MAX: Final = 90.0


@dataclass(frozen=True, slots=True)
class Killed:
    """What became of one kill."""

    case: str
    state: str
    elsewhere: bool
    resume_s: float | None
    flashes: int
    right: bool
    """The machine stands as the job says."""
    trace: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: a seed says all."""


def plan_of(kind: str) -> tuple[Step, ...]:
    """Return the steps of a kind of job on a server with a BMC."""
    if kind != "flash":
        return plan(kind, PARAMS[kind], "srv1", True)
    off = Step(id="off", name="off", kind="set", do="power", args={"on": False}, tries=6)
    flash = Step(id="flash", name="flash", kind="one-shot", do="flash", after=("off",))
    on = Step(
        id="on", name="on", kind="set", do="power", args={"on": True}, after=("flash",), tries=6
    )
    return off, flash, on


def run_job(seed: int, kind: str, size: int, fence: bool, kill_at: int) -> Site:
    """Run a job whose runner dies at a boundary (-1: never, it only counts)."""
    site = Site(seed, OURS, plan_of(kind), size, fence)
    site.device_loss, site.device_slow, site.net.loss = 0.0, 0.0, 0.0
    site.kill_at = kill_at
    site.poll_machine()
    site.clock.expect(site.run(), f"{kind} with {size} nodes never ended")
    return site


def stands(site: Site, kind: str) -> bool:
    """Say whether the machine stands as a job that succeeded says."""
    device = site.device
    match kind:
        case "server.deploy":
            return (device.disk, device.first_boot, device.power, device.up, device.boot) == (
                "image", True, "on", "system", "disk",
            )  # fmt: skip
        case "server.release":
            return (device.disk, device.power) == ("zeros", "off")
        case "flash":
            return (device.flashes, device.power) == (1, "on")
        case _:
            return site.recorded


def kill(seed: int, kind: str, size: int, fence: bool, at: int) -> Killed:
    """Kill a job's runner at a boundary and see what becomes of the job."""
    site = run_job(seed, kind, size, fence, at)
    row = site.best_row()
    resume_s = None if site.resumed_at is None else site.resumed_at - site.killed_at
    return Killed(
        f"{kind} {size} {'redfish' if fence else 'ipmi'} {at}", row["state"],
        row["runner"] != site.first, resume_s, site.device.flashes, stands(site, kind),
        site.clock.trace_hash(),
    )  # fmt: skip


def one_seed(seed: int) -> list[Killed]:
    """Kill at every boundary of every job in every kind of site."""
    found: list[Killed] = []
    for size, fence in KINDS:
        for kind in PARAMS:
            clean = run_job(seed, kind, size, fence, -1)
            state = clean.best_row()["state"]
            clean.clock.expect(
                state == "succeeded" and stands(clean, kind), f"{kind} came to {state}"
            )
            found += [kill(seed, kind, size, fence, at + 1) for at in range(clean.cuts)]
    return found


def wrong(one: Killed) -> str | None:
    """Return what is wrong with how a kill ended."""
    if one.flashes > 1:
        return f"{one.case}: flashed {one.flashes} times"
    parked = one.case.startswith("flash") and one.state == "parked"
    if not parked and (one.state != "succeeded" or not one.right):
        return f"{one.case}: the job is {one.state}, the machine {'as' if one.right else 'not'}"
    return None


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the seeds; return the figures of all."""
    failures: list[str] = []
    found: list[Killed] = []
    trace = hashlib.blake2b(digest_size=16)
    for seed, kills, again in over_seeds(one_seed, args, failures):
        failures += [f"{bad}\n{again}" for bad in map(wrong, kills) if bad is not None]
        found += kills
        for one in kills:
            trace.update(bytes.fromhex(one.trace))
        say(f"seed {seed}: {len(kills)} kills")
    fast = [k.resume_s for k in found if k.resume_s is not None and " 3 redfish" in k.case]
    slow = [k.resume_s for k in found if k.resume_s is not None and " 3 redfish" not in k.case]
    figures = {"resume_p95_s": at_share(fast, 0.95), "resume_p95_ipmi_s": at_share(slow, 0.95)}
    for (name, value), most in zip(
        figures.items(), (RESUME_S_MAX, RESUME_LONG_S_MAX), strict=True
    ):
        if value > most:
            failures.append(f"{name} is {value}, at most {most} is allowed")
    return {
        "kills": len(found),
        "completed": sum(k.elsewhere and k.state == "succeeded" and k.right for k in found),
        "parked": sum(k.state == "parked" for k in found),
        "ended_before": sum(not k.elsewhere and k.state == "succeeded" for k in found),
        "one_shot_twice": sum(k.flashes > 1 for k in found),
        **figures,
        "resume_max_s": at_share(fast, 1.0),
        "resume_max_ipmi_s": at_share(slow, 1.0),
        "trace": trace.hexdigest(),
        "failures": failures,
    }
