"""A step that the machine's own agent does: its commands one after the other, and their proof.

It knows what a step asks of the agent and what evidence it must bring, nothing of HTTP or of
signatures (``node/proto/agent_desk.py``). Rule: a step is done when every command has proved
its work; the first that has not fails the step."""

from collections.abc import Mapping, Sequence
from typing import Any

from mesh.proto.cleanup import DEFAULT, CleanupPolicy
from node.proto.agent_desk import Command, Reported
from node.proto.erase_policy import (
    ErasePlan,
    Held,
    after_power_cycle,
    erase_seed,
    plan_disk,
)
from node.proto.evidence import missing_erase, missing_proof
from node.proto.plan import Step


class AgentWork:
    """One try of one step at the agent."""

    def __init__(
        self,
        step: Step,
        job: Mapping[str, Any],
        asset: Mapping[str, Any],
        inventory: Mapping[str, Any] | None,
        tries: int,
        policy: CleanupPolicy = DEFAULT,
    ) -> None:
        """``asset`` is the evidence of the fetch step: bytes, sha256.

        ``inventory`` holds the disks that the bound machine named; None: it named none yet.
        """
        self.step = step
        self.name = str(job.get("server_name"))
        self.policy = policy
        self._asset = asset
        self.refusal: str | None = None
        self.frozen: str | None = None
        """Why nothing can be erased before the machine was switched off and on."""
        self.plans: list[ErasePlan] = []
        """Of each command of a wipe, how its disk is erased."""
        self.commands = self._commands(job, inventory or {}, tries)
        cut = (inventory or {}).get("disks_cut")
        if inventory is None and step.args["do"] == "wipe":
            self.refusal = f"{self.name} has not named its disks in this job; retry the job"
        elif cut and step.args["do"] == "wipe":
            self.refusal = f"{self.name} has {cut} disks, more than can be wiped in one job"
        self._at = 0
        self._done: list[dict[str, Any]] = []
        self._sizes = [0] * len(self.commands)

    @property
    def command(self) -> Command:
        """What the agent shall do now."""
        return self.commands[self._at]

    def on_report(self, report: Reported) -> tuple[bool, str | None]:
        """Take a report; return (whether the step is over, error or None)."""
        assert report.command == self.command.id
        if not report.ok:
            return True, f"{self.name}: {report.error or 'the ramdisk gave no reason'}"
        if self.command.do == "erase":
            lacking = missing_erase(self.name, self.command.args, report.evidence)
        else:
            size, sha256 = self._asset.get("bytes"), self._asset.get("sha256")
            lacking = missing_proof(self.command.do, self.name, report.evidence, size, sha256)
        if lacking is not None:
            return True, lacking
        self._done.append(report.evidence)
        if self._at + 1 == len(self.commands):
            return True, None
        self._at += 1
        return False, None

    def on_progress(self, done: int, total: int) -> tuple[int, int]:
        """Return the step's progress from the current command's."""
        self._sizes[self._at] = total
        before = sum(self._sizes[: self._at])
        return before + done, max(sum(self._sizes), before + total)

    def evidence(self) -> dict[str, Any]:
        """Return the evidence of all commands as one."""
        if len(self._done) == 1 and self.step.args["do"] != "wipe":
            return self._done[0]
        sums = {
            key: sum(item.get(key) or 0 for item in self._done)
            for key in ("bytes", "verified_bytes", "nonzero", "samples", "seconds")
        }
        methods = dict.fromkeys(str(item.get("method") or "overwrite") for item in self._done)
        return {**sums, "disks": len(self._done), "methods": ", ".join(methods)}

    def _commands(
        self, job: Mapping[str, Any], inventory: Mapping[str, Any], tries: int
    ) -> list[Command]:
        wrote: dict[str, Any] = next((e for e in job["steps"] if e.get("id") == "write"), {})
        written = (wrote.get("evidence") or {}).get("disk")
        do = str(self.step.args["do"])
        base = f"{self.step.id}.{job['attempt']}.{tries}"
        match do:
            case "wipe":
                return self._erases(job, inventory, base)
            case "write_image":
                args: dict[str, Any] = {"asset": job["params"]["asset"]}
                args |= {"disk": {"first": True}, "size": self._asset.get("bytes")}
            case "first_boot":
                serials = {disk.get("serial") for disk in _disks(inventory)}
                disk = {"serial": written} if written in serials else {"first": True}
                args = {"disk": disk, "image_bytes": self._asset.get("bytes")}
            case _:
                args = {}
        return [Command(id=base, do=do, args=args)]

    def _erases(
        self, job: Mapping[str, Any], inventory: Mapping[str, Any], base: str
    ) -> list[Command]:
        """Return a command a disk; where one cannot be erased as wanted, none is touched."""
        found: list[Command] = []
        disks = _disks(inventory)
        decide = after_power_cycle if job.get("unfreeze_ms") else plan_disk
        for n, selector in enumerate(disks_to_wipe(inventory)):
            disk = disks[n] if n < len(disks) else {}
            plan, id_ = decide(disk, self.policy), f"{base}.{n}"
            if isinstance(plan, Held):
                why = f"{self.name}: {plan.reason}"
                if plan.power_cycle:
                    self.frozen = self.frozen or why
                else:
                    self.refusal = self.refusal or why
                plan = ErasePlan((), False)
            self.plans.append(plan)
            args: dict[str, Any] = {"disk": selector}
            if not plan.old_agent:
                args |= {
                    "serial": str(disk.get("serial") or ""), "bytes": disk.get("bytes"),
                    "methods": list(plan.methods), "samples": self.policy.samples,
                    "seed": erase_seed(str(job["id"]), id_),
                }  # fmt: skip
            do = "wipe" if plan.old_agent else "erase"
            found.append(Command(id=id_, do=do, args=args))
        return found


def _disks(inventory: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the writable fixed disks of an inventory, in its order."""
    listed = inventory.get("disks")
    disks = listed if isinstance(listed, list) else []
    return [
        disk
        for disk in disks
        if isinstance(disk, Mapping)
        if disk.get("fixed") is not False and disk.get("writable") is not False
    ]


def disks_to_wipe(inventory: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """Return how to name each writable fixed disk; the first one where serials are missing.

    An inventory without disks still names the first: a machine that has none says so, and the
    step fails with that sentence instead of claiming a wipe.
    """
    disks = _disks(inventory)
    serials = [disk.get("serial") for disk in disks]
    named = all(isinstance(s, str) and s for s in serials) and len(set(serials)) == len(serials)
    if len(disks) > 1 and not named:
        return [{"first": True}, *({"serial": str(s or "")} for s in serials[1:])]
    if disks and named:
        return [{"serial": str(serial)} for serial in serials]
    return [{"first": True}]
