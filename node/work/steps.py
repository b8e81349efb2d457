"""How the steps that this node does itself are done: BMC, cache, rows.

It knows devices and rows, not when a step runs (``node/proto/job.py``); what the machine's own
agent does stands in ``agent_work.py``. Rules: power and boot device are set, then read back
until they agree, bounded; never a cycle or a reset; each failure is one sentence that names the
BMC."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import trio

from drivers.api import Bmc, BootTarget
from drivers.errors import DeviceRefused, DriverError
from mesh.errors import Refused
from mesh.proto.enrol import MANAGED
from node.hooks.desk import HookDesk
from node.hooks.outcome import HookFailed, HookUnsure
from node.proto.job import Effect, Job, Seen
from node.proto.moving import MOVES, move
from node.proto.plan import Step
from node.work.discs import DiscDesk
from node.work.enrol import Enrol
from node.work.logins import Logins
from node.work.ports import AssetCache, Assets, Credentials, Holds, Limits, OpenBmc
from node.work.rows import SiteRows
from node.work.scan import ScanFrom, Scanner
from node.work.tenure import epoch_of

REFUSED_TRIES: Final = 2
"""A BMC that says no gets this many tries: more would lock an account out."""
TROUBLE_POLL_S: Final = 2.0
FETCH_STALL_S: Final = 60.0
"""An asset that is in trouble and does not come forward for so long fails its try."""

WAYS_TOLD_MAX: Final = 6
WAY_CHARS_MAX: Final = 300

Progress = Callable[[int, int], Awaitable[None]]
Says = Callable[[str | None], Awaitable[None]]


class StepFailed(Exception):
    """A try of a step failed; ``str(error)`` is one sentence, nothing is known to stand."""

    def __init__(self, sentence: str, passing: bool) -> None:
        super().__init__(sentence)
        self.passing = passing

    def tell(self, job: Job, step: str, now_ms: int) -> list[Effect]:
        """Tell the job."""
        return job.on_failed(step, str(self), self.passing, now_ms)


class StepUnsure(StepFailed):
    """It may have been done and must not be done twice; ``str(error)`` is one sentence."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, False)

    def tell(self, job: Job, step: str, now_ms: int) -> list[Effect]:
        """Tell the job."""
        return job.on_unsure(step, str(self), now_ms)


class StepMoves(StepFailed):
    """This node cannot do it; ``to`` tries next."""

    def __init__(self, sentence: str, to: str) -> None:
        super().__init__(sentence, True)
        self.to = to

    def tell(self, job: Job, step: str, now_ms: int) -> list[Effect]:
        """Tell the job."""
        return move(job, step, str(self), self.to, now_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """One try of one step."""

    step: Step
    job: Mapping[str, Any]
    attempts: int
    progress: Progress
    says: Says


class Steps:
    """Carries out and probes the steps that need no agent."""

    def __init__(
        self,
        *,
        rows: SiteRows,
        open_bmc: OpenBmc,
        credentials: Credentials,
        assets: Assets,
        cache: AssetCache,
        limits: Limits,
        logins: Logins,
        discs: DiscDesk,
        holds: Holds,
        elsewhere: Callable[[Mapping[str, Any]], str | None],
        scan_from: ScanFrom,
        hooks: HookDesk,
    ) -> None:
        self._rows, self._hooks = rows, hooks
        self._holds, self._elsewhere = holds, elsewhere
        self._fences: dict[str, str] = {}
        self._shut_out: dict[str, int] = {}
        """By job that we took over, the epoch for which its last runner was shut out."""
        self._logins = logins
        self._enrol = Enrol(rows)
        self._discs = discs
        self._scanner = Scanner(rows, scan_from)
        self._open_bmc = open_bmc
        self._credentials = credentials
        self._assets = assets
        self._cache = cache
        self._limits = limits
        self._bmc_calls = trio.CapacityLimiter(limits.bmc_calls_max)
        self._fetches = trio.CapacityLimiter(limits.fetches_max)

    async def act(self, doing: Doing) -> dict[str, Any]:
        """Do a step and return its evidence; raises StepFailed."""
        try:
            return await self._act(doing)
        except StepFailed as exc:
            last = exc.passing and doing.attempts >= doing.step.tries
            moves = last and doing.step.do in MOVES
            to = self._elsewhere(doing.job) if moves else None
            if to is None:
                raise
            raise StepMoves(str(exc), to) from exc

    async def _act(self, doing: Doing) -> dict[str, Any]:
        try:
            match doing.step.do:
                case "power":
                    return await self._power(doing, bool(doing.step.args["on"]))
                case "boot":
                    return await self._boot(doing, str(doing.step.args["device"]))
                case "disc":
                    return await self._disc(doing)
                case "fetch":
                    return await self._fetch(doing)
                case "record":
                    return await self._enrol.record(doing.job)
                case "inspect":
                    return await self._enrol.inspect(doing.job)
                case "inspect-oob":
                    async with self._bmc(doing) as bmc:
                        found = await bmc.inventory()
                    return await self._enrol.inspected(doing.job, found)
                case "scan":
                    return await self._scanner.run(doing.job, doing.progress)
                case "promote":
                    return await self._enrol.promote(doing.job)
                case "boot-by":
                    return await self._enrol.boot_by(doing.job, str(doing.step.args["by"]))
                case "seal-login" | "new-password" | "switch-login" as do:
                    async with self._bmc_calls:
                        return await self._logins.act(do, doing.job, doing.attempts)
                case "hook":
                    return await self._hook(doing)
                case other:
                    raise AssertionError(f"no such verb: {other}")
        except DeviceRefused as exc:
            raise StepFailed(str(exc), doing.attempts < REFUSED_TRIES) from exc
        except DriverError as exc:
            raise StepFailed(str(exc), True) from exc
        except Refused as exc:
            raise StepFailed(str(exc), False) from exc

    async def probe(self, doing: Doing) -> tuple[Seen, dict[str, Any] | None]:
        """Look whether a step's target stands; what cannot be seen is unknown."""
        step = doing.step
        try:
            match step.do:
                case "power":
                    async with self._bmc(doing) as bmc:
                        state = await bmc.power_state()
                    return _seen(state == _power_word(bool(step.args["on"]))), {"power": state}
                case "boot":
                    async with self._bmc(doing) as bmc:
                        device = await bmc.boot_device()
                    return _seen(device == step.args["device"]), {"boot": device}
                case "disc":
                    async with self._bmc(doing) as bmc:
                        shown = await bmc.inserted_medium()
                    return _seen(self._disc_stands(doing, shown)), {"disc": shown is not None}
                case "fetch":
                    held = self._cache.holds(step.args["asset"])
                    return _seen(held), self._asset_evidence(step.args["asset"]) if held else {}
                case "promote":
                    promoted = self._rows.server(doing.job["server"]) or {}
                    now = promoted.get("administration")
                    return _seen(now == MANAGED), {"administration": now}
                case "record":
                    server = self._rows.server(doing.job["server"])
                    return _seen(server is not None), {"server": doing.job["server"]}
                case "seal-login" | "new-password" | "switch-login" as do:
                    return await self._logins.probe(do, doing.job)
                case _:
                    return "unknown", None
        except (DriverError, Refused):
            return "unknown", None

    async def _hook(self, doing: Doing) -> dict[str, Any]:
        server = self._rows.server(doing.job["server"]) or {}
        try:
            hook = doing.step.args["hook"]
            return await self._hooks.act(doing.step.id, hook, doing.job, server)
        except HookFailed as exc:
            raise StepFailed(str(exc), exc.passing) from exc
        except HookUnsure as exc:
            raise StepUnsure(str(exc)) from exc

    # -- BMC -------------------------------------------------------------------------------

    @asynccontextmanager
    async def _bmc(self, doing: Doing) -> AsyncGenerator[Bmc]:
        server = self._rows.server(doing.job["server"]) or {}
        bmc = server.get("bmc") or doing.job["params"].get("bmc")
        name = doing.job.get("server_name")
        if not isinstance(bmc, Mapping) or not bmc.get("url"):
            raise Refused(f"{name} has no BMC any more")
        if not bmc.get("secret"):
            raise Refused(f"the BMC of {name} has no secret: give its user name and password")
        credentials = self._credentials(str(bmc["secret"]))
        may_send = partial(self._holds, doing.job)
        opened = self._open_bmc(str(bmc["url"]), credentials, may_send)
        async with self._bmc_calls, opened as device:
            await self._shut_out_others(doing.job, device)
            try:
                yield device
            finally:
                if device.fences:
                    self._fences[str(server.get("id"))] = str(bmc["url"])

    def fences(self, server_id: str) -> str | None:
        """Return the URL of a server's BMC if others' sessions at it can be ended."""
        return self._fences.get(server_id)

    async def _shut_out_others(self, job: Mapping[str, Any], device: Bmc) -> None:
        """Once after a takeover: end what the runner before us may still send."""
        job_id, epoch = str(job["id"]), epoch_of(job)
        if epoch > self._shut_out.get(job_id, 1):
            await device.fence()
            self._shut_out[job_id] = epoch

    async def _power(self, doing: Doing, on: bool) -> dict[str, Any]:
        word = _power_word(on)
        async with self._bmc(doing) as bmc:
            before = await bmc.power_state()
            if before != word:
                await bmc.set_power(on)
            seen = await self._read_back(bmc.power_state, word)
            if seen != word:
                raise StepFailed(f"{bmc.url} took the order power {word} but says {seen}", True)
            return {"power": word, "was": before, **_ways(bmc)}

    async def _boot(self, doing: Doing, device: str) -> dict[str, Any]:
        assert device in ("network", "disk", "cd")
        async with self._bmc(doing) as bmc:
            target: BootTarget = "cd" if device == "cd" else "disk"
            target = "network" if device == "network" else target
            await bmc.set_boot(target, uefi=self._uefi(doing))
            seen = await self._read_back(bmc.boot_device, device)
            if seen != device:
                raise StepFailed(f"{bmc.url} took boot device {device} but says {seen}", True)
            return {"boot": device, **_ways(bmc)}

    async def _disc(self, doing: Doing) -> dict[str, Any]:
        """Put the attempt's own disc into the virtual drive, or empty it."""
        insert = bool(doing.step.args["insert"])
        url = self._discs.url(doing.job) if insert else ""
        async with self._bmc(doing) as bmc:
            if insert:
                await bmc.insert_medium(url)
            else:
                await bmc.eject_medium()
        return {"disc": insert}

    def _disc_stands(self, doing: Doing, shown: str | None) -> bool:
        if not doing.step.args["insert"]:
            return shown is None
        return shown is not None and self._discs.is_for(shown, doing.job)

    def _uefi(self, doing: Doing) -> bool | None:
        """Tell whether the machine's ramdisk was started by UEFI, None when none reported."""
        server = self._rows.server(doing.job["server"]) or {}
        found = (self._rows.inventory_of(server) or {}).get("inventory")
        firmware = found.get("firmware") if isinstance(found, Mapping) else None
        kind = firmware.get("type") if isinstance(firmware, Mapping) else None
        return kind == "uefi" if kind in ("uefi", "bios") else None

    async def _read_back(self, look: Callable[[], Awaitable[str]], wanted: str) -> str:
        """Look until it is what we want, or the time is over; return what was seen last."""
        until = trio.current_time() + self._limits.read_back_s
        while True:
            seen = await look()
            if seen == wanted or trio.current_time() >= until:
                return seen
            await trio.sleep(self._limits.read_back_poll_s)

    # -- assets ----------------------------------------------------------------------------

    async def _fetch(self, doing: Doing) -> dict[str, Any]:
        asset, name = str(doing.step.args["asset"]), str(doing.step.args["image"])
        moved = [trio.current_time(), 0]
        manifest = self._cache.manifest

        async def progress(have: int, of: int) -> None:
            if have != moved[1]:
                moved[:] = [trio.current_time(), have]
            found = manifest(asset)
            size = found.size if found else 0
            await doing.progress(size * have // max(of, 1), size)

        async def watch() -> None:
            said: str | None = None
            while True:
                trouble, waits = self._assets.trouble(name), self._assets.waits_for(name)
                says = f"waits for image {name}: {trouble}" if trouble else waits
                if says != said:
                    await doing.says(says)
                    said = says
                if trouble and trio.current_time() > moved[0] + FETCH_STALL_S:
                    raise StepFailed(f"image {name}: {trouble}", True)
                await trio.sleep(TROUBLE_POLL_S)

        async with self._fetches:
            await _with_watch(watch, lambda: self._assets.want(name, asset, progress))
        return self._asset_evidence(asset)

    def _asset_evidence(self, asset: str) -> dict[str, Any]:
        manifest = self._cache.manifest(asset)
        if manifest is None:
            return {}
        return {"bytes": manifest.size, "sha256": manifest.sha256}


async def _with_watch(
    watch: Callable[[], Awaitable[None]], work: Callable[[], Awaitable[None]]
) -> None:
    """Do the work under a watch that may fail it; the watch's own StepFailed comes out."""
    failed: list[StepFailed] = []

    async def guard() -> None:
        try:
            await watch()
        except StepFailed as exc:
            failed.append(exc)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(guard)
        await work()
        nursery.cancel_scope.cancel()
    if failed:
        raise failed[0]


def _seen(yes: bool) -> Seen:
    return "done" if yes else "not done"


def _power_word(on: bool) -> str:
    return "on" if on else "off"


def _ways(bmc: Bmc) -> dict[str, Any]:
    """Return the ways to a BMC that were tried, as evidence, when there was more than one."""
    tried = [f"{one.verb} by {one.provider}, {one.seconds:g} s: {one.outcome}"[:WAY_CHARS_MAX]
             for one in bmc.attempts]  # fmt: skip
    several = len({one.provider for one in bmc.attempts}) > 1
    return {"tried": tried[-WAYS_TOLD_MAX:]} if several else {}
