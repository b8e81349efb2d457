"""An order becomes steps: what is done to a server, in which order, waiting for what.

It knows nothing of how a step is done (``node/work/steps.py``) nor of what has been done
(``node/proto/job.py``). Rule: the plan is a pure function of the order and of whether the
server has a BMC, so a node that restarts plans the same steps again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from mesh.proto.enrol import OOB
from mesh.proto.hook import WEBHOOK, Hook, read_hooks
from mesh.proto.net_boot import writes_disks
from node.proto.lifecycle import (
    ACCEPT,
    ADOPT,
    BOOT_BY,
    DEPLOY,
    PASSWORD,
    POWER,
    PROMOTE,
    RELEASE,
    SCAN,
)

Kind = Literal["observe", "set", "keyed", "one-shot"]

MINUTE_MS: Final = 60_000
BMC_TRIES: Final = 6
"""With the back-off of ``node.proto.job`` a BMC gets about a minute to come to its senses."""
BMC_LIMIT_MS: Final = 3 * MINUTE_MS
BOOT_LIMIT_MS: Final = 15 * MINUTE_MS
"""From power on to the first hello of the ramdisk, or from restart to the phone-in."""
BY_HAND_LIMIT_MS: Final = 24 * 60 * MINUTE_MS
DISK_LIMIT_MS: Final = 24 * 60 * MINUTE_MS
"""Writing or wiping: 20 TB at 250 MB/s are 22 hours; silence ends a step much earlier."""
AGENT_LIMIT_MS: Final = 10 * MINUTE_MS
OOB_LIMIT_MS: Final = 5 * MINUTE_MS
"""Reading a whole machine from a slow BMC."""
SCAN_LIMIT_MS: Final = 15 * MINUTE_MS
FETCH_LIMIT_MS: Final = 6 * 60 * MINUTE_MS
PHONE_LIMIT_MS: Final = 30 * MINUTE_MS
HOOK_GRACE_MS: Final = 60_000
"""Beyond a hook's own time, within which its shell has told how it ended."""
INSTALL_LIMIT_MS: Final = 6 * 60 * MINUTE_MS
"""An installer that fetches packages over a slow uplink takes hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a plan."""

    id: str
    """Unique inside the plan; shown in logs."""
    name: str
    """For people."""
    kind: Kind
    do: str
    """Verb of the shell: record, inspect, fetch, power, boot, ramdisk, agent, phone-in,
    net-boot, disc, seal-login, new-password, switch-login, inspect-oob, promote,
    scan, boot-by, hook."""
    args: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    """Steps that must be done before."""
    waits: str | None = None
    """What the job waits for while this step runs; None: it works."""
    state: str | None = None
    """Server state from the begin of this step on."""
    tries: int = 1
    """Tries in all when a try fails for a passing reason."""
    limit_ms: int = BMC_LIMIT_MS
    """Longest time of one try."""
    touches: bool = True
    """False: it leaves the machine as it is, so a cancelled job may go back."""
    dirties: bool = False
    """True: from its begin on the disks hold somebody's data."""
    ramdisk: bool = False
    """True: while this is the next step, a booting machine gets the ramdisk."""
    net_boot: bool = False
    """True: while this is the next step, a booting machine gets what was ordered to boot."""
    redo: str | None = None
    """Step to begin again from when the machine is lost or a person says retry."""
    optional: bool = False
    """True: when it fails, the job goes on and says so."""


SKIPPABLE: Final = frozenset(
    {"power", "boot", "disc", "hook", "inspect", "phone-in", "net-boot"}
)
"""Verbs of the shell that a person may say were seen to otherwise, or do not matter."""
SKIPPABLE_AGENT: Final = frozenset({"first_boot", "reboot", "poweroff"})


def may_skip(step: Step) -> bool:
    """Say whether a person's word may stand in for a step that failed.

    Not for what later steps or the server's row take as proved: records, images, logins, the
    ramdisk's session, what was written or wiped. What is not named here cannot be skipped.
    """
    return step.do in SKIPPABLE or (
        step.do == "agent" and step.args.get("do") in SKIPPABLE_AGENT
    )


def plan(
    kind: str, params: Mapping[str, Any], name: str, bmc: bool,
    media: bool = False, rotate: bool = False,
) -> tuple[Step, ...]:  # fmt: skip
    """Return the steps of an order on the server ``name``; an empty plan has nothing to do.

    ``media``: it gets into the ramdisk by a disc in its BMC's virtual drive, not by network;
    ``rotate``: its BMC gets a new password when it is enrolled, and when it is released.
    """
    assert bmc or not media, "the virtual drive is the BMC's"
    match kind:
        case "server.accept" | "server.adopt":
            steps = _enrol(kind, params, name)
        case "server.promote":
            steps = [_note("promote", "manage it from now on")]
        case "server.boot-by":
            way = str(params["by"])
            steps = [replace(_note("boot-by", f"boot by {way} from now on"), args={"by": way})]
        case "bmc.scan":
            steps = [_scan()]
        case "server.deploy":
            boot = params.get("boot")
            steps = (
                _net_boot(boot, params, name, bmc)
                if boot
                else _deploy(params, name, bmc, media)
            )
        case "server.release":
            steps = _release(name, bmc, media)
        case "server.power":
            steps = [_power("power", bool(params["on"]))]
        case "server.password":
            steps = _password()
        case _:
            steps = []
    known = {ACCEPT, ADOPT, PROMOTE, SCAN, DEPLOY, RELEASE, POWER, PASSWORD, BOOT_BY}
    assert kind in known or not steps
    if rotate and bmc and kind in (ACCEPT, RELEASE):
        steps += _password((steps[0 if kind == ACCEPT else -1].id,))
    return tuple(_with_hooks(steps, params, kind))


def _with_hooks(steps: list[Step], params: Mapping[str, Any], kind: str) -> list[Step]:
    """Put the hooks of an order around its steps: nothing begins before the last one before."""
    hooks = read_hooks(params, kind) if params.get("hooks") else ()
    before: list[Step] = []
    for number, hook in enumerate(hooks, 1):
        if hook.before:
            before += _hook(hook, number, (before[-1].id,) if before else ())
    if before:
        first = (before[-1].id,)
        steps = [step if step.after else replace(step, after=first) for step in steps]
    followed = {name for step in steps for name in step.after}
    last = tuple(step.id for step in steps if step.id not in followed)
    after: list[Step] = []
    for number, hook in enumerate(hooks, 1):
        if not hook.before:
            after += _hook(hook, number, (after[-1].id,) if after else last)
    return [*before, *steps, *after]


def _hook(hook: Hook, number: int, after: tuple[str, ...]) -> list[Step]:
    """Return a hook's step, after one that fetches its playbook when that is an asset.

    A webhook is keyed by its delivery id; whatever runs a program is a one-shot, unless the
    hook says that it may be repeated.
    """
    optional = hook.on_failure == "continue"
    steps: list[Step] = []
    if hook.asset_id is not None:
        args = {"asset": hook.asset_id, "image": hook.asset}
        steps.append(
            Step(
                id=f"hook-{number}-fetch", name=f"fetch playbook {hook.asset}", kind="keyed",
                do="fetch", args=args, after=after, tries=5, limit_ms=FETCH_LIMIT_MS,
                touches=False, optional=optional,
            )
        )  # fmt: skip
        after = (steps[-1].id,)
    runs: Kind = "set" if hook.repeatable else "one-shot"
    steps.append(
        Step(
            id=f"hook-{number}",
            name=f"hook {hook.name} ({hook.kind})",
            kind="keyed" if hook.kind == WEBHOOK else runs,
            do="hook",
            args={"hook": hook},
            after=after,
            tries=hook.tries,
            limit_ms=hook.timeout_s * 1000 + HOOK_GRACE_MS,
            touches=False,
            optional=optional,
        )
    )
    return steps


def _enrol(kind: str, params: Mapping[str, Any], name: str) -> list[Step]:
    """Make a machine a server; what it is made of its ramdisk tells, or its BMC."""
    if params.get("inspect") == OOB:
        inspect = Step(
            id="inspect", name="inspect by its BMC", kind="keyed", do="inspect-oob",
            tries=BMC_TRIES, limit_ms=OOB_LIMIT_MS, touches=False,
        )  # fmt: skip
        return [inspect]
    record = _note("record", "record server")
    if kind == ADOPT:
        return [record]
    inspect = Step(
        id="inspect", name="inspect", kind="observe", do="inspect", after=("record",),
        waits=f"waits for the inventory of {name}: boot it from the network",
        limit_ms=BY_HAND_LIMIT_MS, touches=False,
    )  # fmt: skip
    return [record, inspect]


def _note(do: str, name: str) -> Step:
    """A step that only writes a row."""
    return Step(id=do, name=name, kind="keyed", do=do, touches=False)


def _scan() -> Step:
    return Step(
        id="scan", name="scan for BMCs", kind="observe", do="scan", limit_ms=SCAN_LIMIT_MS,
        touches=False,
    )  # fmt: skip


def _password(after: tuple[str, ...] = ()) -> list[Step]:
    """Change a BMC's password so that no crash in between locks anybody out: the new login is
    known to the site's nodes before the BMC hears of it, and counts when the BMC takes it."""
    return [
        Step(
            id="seal", name="make a password and seal it to the site's nodes", kind="keyed",
            do="seal-login", after=after, touches=False,
        ),
        Step(
            id="password", name="set the password", kind="set", do="new-password",
            after=("seal",), tries=BMC_TRIES,
        ),
        Step(
            id="switch", name="use the new password", kind="keyed", do="switch-login",
            after=("password",), tries=BMC_TRIES,
        ),
    ]  # fmt: skip


def _deploy(params: Mapping[str, Any], name: str, bmc: bool, media: bool) -> list[Step]:
    fetch = Step(
        id="fetch",
        name="fetch image",
        kind="keyed",
        do="fetch",
        args={"asset": params["asset"], "image": params["image"]},
        tries=5,
        limit_ms=FETCH_LIMIT_MS,
        touches=False,
    )
    steps = [fetch, *_into_ramdisk(name, bmc, "fetch", media)]
    redo = steps[1].id
    steps += [
        Step(
            id="write",
            name="write image",
            kind="set",
            do="agent",
            args={"do": "write_image"},
            after=("ramdisk",),
            limit_ms=DISK_LIMIT_MS,
            tries=3,
            ramdisk=True,
            dirties=True,
            redo=redo,
        ),
        Step(
            id="first-boot",
            name="first-boot data",
            kind="set",
            do="agent",
            args={"do": "first_boot"},
            after=("write",),
            limit_ms=AGENT_LIMIT_MS,
            tries=3,
            ramdisk=True,
            redo=redo,
        ),
    ]
    steps += _restart(bmc, media)
    steps.append(
        Step(
            id="phone-in",
            name="phone-in",
            kind="observe",
            do="phone-in",
            after=(steps[-1].id,),
            waits=f"waits for {name} to boot from its disk and phone in",
            limit_ms=PHONE_LIMIT_MS,
            redo=steps[-2].id if bmc else None,
        )
    )
    return steps


def _net_boot(
    boot: Mapping[str, Any], params: Mapping[str, Any], name: str, bmc: bool
) -> list[Step]:
    """Boot a live system, an ISO or an installer off the network; only the last one writes."""
    installs = writes_disks(boot)
    what = {"iso": "boot ISO", "installer": "install"}.get(boot["kind"], "boot live system")
    limit_ms = (INSTALL_LIMIT_MS if installs else PHONE_LIMIT_MS) if bmc else BY_HAND_LIMIT_MS
    steps: list[Step] = []
    for number, file in enumerate(boot["files"]):
        steps.append(
            Step(
                id=f"fetch-{number}",
                name=f"fetch {file['role']}",
                kind="keyed",
                do="fetch",
                args={"asset": file["asset"], "image": file["name"]},
                tries=5,
                limit_ms=FETCH_LIMIT_MS,
                touches=False,
            )
        )
    fetched = tuple(step.id for step in steps)
    waits = f"waits for {name} to boot {params['image']} off the network"
    if bmc:
        steps += [
            replace(_power("power-off", False), after=fetched),
            _boot("boot-network", "network", "power-off"),
            _power("power-on", True, "boot-network", state="deploy-wait", net_boot=True),
        ]
    steps.append(
        Step(
            id="booted",
            name=what,
            kind="observe",
            do="net-boot",
            after=("power-on",) if bmc else fetched,
            waits=waits if bmc else f"{waits}: power it on by hand, it has no BMC",
            state="deploy-wait",
            limit_ms=limit_ms,
            net_boot=True,
            dirties=installs,
            redo="power-off" if bmc else None,
            touches=bmc,
        )
    )
    return steps


def _restart(bmc: bool, media: bool) -> list[Step]:
    """Start the machine from its disk: by its BMC, or by its own agent."""
    if bmc:
        return [
            _boot("boot-disk", "disk", "first-boot"),
            _power("restart-off", False, "boot-disk", state="deploy-wait", name="restart: off"),
            *([_disc("eject", False, "restart-off")] if media else []),
            _power("restart-on", True, "eject" if media else "restart-off", name="restart: on"),
        ]
    return [
        Step(
            id="restart",
            name="restart",
            kind="set",
            do="agent",
            args={"do": "reboot"},
            after=("first-boot",),
            state="deploy-wait",
            limit_ms=AGENT_LIMIT_MS,
        )
    ]


def _release(name: str, bmc: bool, media: bool) -> list[Step]:
    steps = _into_ramdisk(name, bmc, None, media)
    redo = steps[0].id
    steps.append(
        Step(
            id="wipe",
            name="wipe disks",
            kind="set",
            do="agent",
            args={"do": "wipe"},
            after=("ramdisk",),
            state="cleaning",
            limit_ms=DISK_LIMIT_MS,
            tries=3,
            ramdisk=True,
            redo=redo,
        )
    )
    if bmc:
        steps.append(_power("off", False, "wipe"))
        if media:
            steps.append(_disc("eject", False, "off"))
    else:
        steps.append(
            Step(
                id="off",
                name="power off",
                kind="set",
                do="agent",
                args={"do": "poweroff"},
                after=("wipe",),
                limit_ms=AGENT_LIMIT_MS,
            )
        )
    return steps


def _into_ramdisk(name: str, bmc: bool, after: str | None, media: bool = False) -> list[Step]:
    """Get the machine into the ramdisk: by its BMC and a disc or the network, or by hand."""
    steps: list[Step] = []
    if bmc:
        steps = [
            _power("power-off", False, after),
            *([_disc("insert", True, "power-off")] if media else []),
            _boot("boot-cd", "cd", "insert")
            if media
            else _boot("boot-network", "network", "power-off"),
        ]
        steps.append(_power("power-on", True, steps[-1].id, ramdisk=True))
        after = "power-on"
    waits = f"waits for the ramdisk of {name} to report"
    by_hand = f"power it on by hand: {name} has no BMC"
    steps.append(
        Step(
            id="ramdisk",
            name="ramdisk reports",
            kind="observe",
            do="ramdisk",
            after=(after,) if after else (),
            waits=waits if bmc else by_hand,
            limit_ms=BOOT_LIMIT_MS if bmc else BY_HAND_LIMIT_MS,
            ramdisk=True,
            redo="power-off" if bmc else None,
            touches=bmc,
        )
    )
    return steps


def _power(
    step: str,
    on: bool,
    after: str | None = None,
    *,
    name: str | None = None,
    state: str | None = None,
    ramdisk: bool = False,
    net_boot: bool = False,
) -> Step:
    return Step(
        id=step,
        name=name or f"power {'on' if on else 'off'}",
        kind="set",
        do="power",
        args={"on": on},
        after=(after,) if after else (),
        tries=BMC_TRIES,
        state=state,
        ramdisk=ramdisk,
        net_boot=net_boot,
    )


def _disc(step: str, insert: bool, after: str) -> Step:
    return Step(
        id=step,
        name="insert boot disc" if insert else "eject boot disc",
        kind="set",
        do="disc",
        args={"insert": insert},
        after=(after,),
        tries=BMC_TRIES,
    )


def _boot(step: str, device: str, after: str) -> Step:
    return Step(
        id=step,
        name=f"boot from {device}",
        kind="set",
        do="boot",
        args={"device": device},
        after=(after,),
        tries=BMC_TRIES,
    )
