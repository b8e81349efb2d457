"""Hooks of jobs: what each is told, how it is done, and what its end means for its step.

It knows rows and secrets of this node, and no plan. Rules: a hook is done as its order says,
not as it is defined now; secrets are opened here and forgotten with the call; what may have run
and may not run twice has an unknown outcome, which a person judges; whatever goes wrong is one
sentence that names the hook.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import trio

from mesh.errors import Refused
from mesh.host.child import Told
from mesh.proto.hook import Hook, clean_host_key
from node.hooks import ansible, ssh, webhook
from node.hooks.outcome import HookFailed, HookUnsure, evidence, lines_of

PROGRAMS_MAX: Final = 8
"""Programs of hooks that run at a time."""
WEBHOOKS_MAX: Final = 32
HOST_KEYS_MAX: Final = 3

Note = Callable[[str, int, str], None]
"""``note(job, now_ms, line)``: a line for a job's log."""


@dataclass(frozen=True, kw_only=True)
class HookTools:
    """What hooks need of this node."""

    secret: Callable[[str], bytes]
    """A secret's plaintext; raises Refused when it was not released to us."""
    folder: Path
    """Playbooks."""
    asset: Callable[[str, int], Awaitable[bytes | None]]
    """The beginning of an asset that is here, at most so many bytes; None: it is not."""


class HookDesk:
    """Does hooks."""

    def __init__(
        self, tools: HookTools | None, site: str, note: Note, now_ms: Callable[[], int]
    ) -> None:
        self._tools, self._site, self._note, self._now_ms = tools, site, note, now_ms
        self._programs = trio.CapacityLimiter(PROGRAMS_MAX)
        self._webhooks = trio.CapacityLimiter(WEBHOOKS_MAX)

    async def act(
        self, step: str, hook: Hook, job: Mapping[str, Any], server: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Do a hook and return its evidence; raises HookFailed or HookUnsure."""
        try:
            if self._tools is None:
                raise HookFailed("this node does no hooks", False)
            match hook.kind:
                case "webhook":
                    async with self._webhooks:
                        return await self._post(self._tools, step, hook, job, server)
                case "ssh":
                    async with self._programs:
                        return await self._command(self._tools, hook, job, server)
                case "ansible":
                    async with self._programs:
                        return await self._play(self._tools, hook, job, server)
                case other:
                    raise AssertionError(f"no such kind: {other}")
        except Refused as exc:
            raise HookFailed(str(exc), False) from exc

    # -- kinds -------------------------------------------------------------------------------

    async def _post(
        self, tools: HookTools, step: str, hook: Hook, job: Mapping[str, Any],
        server: Mapping[str, Any],
    ) -> dict[str, Any]:  # fmt: skip
        key, delivery = tools.secret(str(hook.secret)), f"{job['id']}-{step}"
        body = {**self._facts(hook, job, server), "delivery": delivery}
        answer = await webhook.deliver(hook, json.dumps(body).encode(), key, delivery)
        lines = await _lines(answer.text, b"", 0, key)
        return {"status": answer.status, "delivery": delivery, **evidence(lines[:1])}

    async def _command(
        self, tools: HookTools, hook: Hook, job: Mapping[str, Any], server: Mapping[str, Any]
    ) -> dict[str, Any]:
        host, keys = _target(hook, job, server)
        key = tools.secret(str(hook.secret))
        ran = await ssh.run_command(hook, host, keys, key)
        lines = await self._told(job, ran.told, key)
        if ran.told.code == 0:
            return {"exit": 0, "host": host, **evidence(lines)}
        last = f": {lines[-1]}" if lines else ""
        if ran.told.code is None:
            sentence = f"{host} did not end the command within {hook.timeout_s} s"
        elif ran.told.code == ssh.CLIENT_FAILED:
            sentence = f"{host} cannot be used over ssh{last}"
        else:
            sentence = f"the command on {host} ended with {_code(ran.told.code)}{last}"
        if not ran.begun:
            raise HookFailed(sentence, True)
        if ran.told.code in (None, ssh.CLIENT_FAILED) and not hook.repeatable:
            raise HookUnsure(f"{sentence}; nobody knows whether it was done")
        raise HookFailed(sentence, hook.repeatable)

    async def _play(
        self, tools: HookTools, hook: Hook, job: Mapping[str, Any], server: Mapping[str, Any]
    ) -> dict[str, Any]:
        local = hook.connection == "local"
        host, keys = ("localhost", ()) if local else _target(hook, job, server)
        key = tools.secret(hook.secret) if hook.secret and not local else None
        playbook = await self._playbook(tools, hook)
        name, facts = str(job.get("server_name")), self._facts(hook, job, server)
        told = await ansible.run_playbook(hook, playbook, name, host, keys, key, facts)
        lines = await self._told(job, told, key)
        if told.code == 0:
            return {"exit": 0, **evidence(lines)}
        last = f": {lines[-1]}" if lines else ""
        if told.code is not None and told.code > 0:
            raise HookFailed(
                f"ansible-playbook for {name} ended with {_code(told.code)}{last}",
                hook.repeatable,
            )
        sentence = f"ansible-playbook for {name} did not end within {hook.timeout_s} s"
        if told.code is not None:
            sentence = f"ansible-playbook for {name} ended with {_code(told.code)}"
        if hook.repeatable:
            raise HookFailed(sentence, True)
        raise HookUnsure(f"{sentence}; nobody knows how far it came")

    # -- within ------------------------------------------------------------------------------

    async def _playbook(self, tools: HookTools, hook: Hook) -> bytes:
        if hook.playbook is not None:
            return await trio.to_thread.run_sync(
                ansible.read_playbook, tools.folder, hook.playbook
            )
        data = await tools.asset(str(hook.asset_id), ansible.PLAYBOOK_BYTES_MAX + 1)
        if data is None:
            raise HookFailed(f"the playbook {hook.asset} is not here", True)
        return ansible.checked(data, str(hook.asset))

    def _facts(
        self, hook: Hook, job: Mapping[str, Any], server: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what a hook is told; nothing of it is secret."""
        params, system = job["params"], _system(job, server)
        return {
            "event": hook.point, "hook": hook.name, "server": job.get("server_name"),
            "server_id": job.get("server"), "job": job["id"], "attempt": job.get("attempt"),
            "site": self._site,
            "hostname": params.get("hostname") or server.get("hostname"),
            "image": params.get("image") or server.get("image"),
            "ip": system.get("ip") or server.get("ip"),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip

    async def _told(self, job: Mapping[str, Any], told: Told, key: bytes | None) -> list[str]:
        """Put what a program printed into the job's log; return the lines."""
        lines = await _lines(bytes(told.head), bytes(told.tail), told.dropped, key)
        for line in lines:
            self._note(job["id"], self._now_ms(), f"| {line}")
        return lines


def playbooks_of(params: Mapping[str, Any]) -> list[str]:
    """Return the assets that the hooks of an order run."""
    hooks = params.get("hooks") or ()
    return [str(hook["asset_id"]) for hook in hooks if hook.get("asset_id")]


def host_keys(said: Mapping[str, Any]) -> list[str]:
    """Return the host keys among the fields of a phone-in (cloud-init's phone_home)."""
    found = (
        clean_host_key(value)
        for name, value in said.items()
        if name.startswith("pub_key_") and isinstance(value, str)
    )
    return sorted({key for key in found if key is not None})[:HOST_KEYS_MAX]


async def _lines(head: bytes, tail: bytes, dropped: int, key: bytes | None) -> list[str]:
    known = [key] if key else []
    lines = await trio.to_thread.run_sync(lines_of, head, tail, dropped, known)
    return [line for line in lines if line]


def _system(job: Mapping[str, Any], server: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the installed system said of itself: in this job, else in an earlier one."""
    for found in (job.get("phoned"), server.get("system")):
        if isinstance(found, Mapping):
            return found
    return {}


def _target(
    hook: Hook, job: Mapping[str, Any], server: Mapping[str, Any]
) -> tuple[str, tuple[str, ...]]:
    """Return the host and its keys; raises HookFailed with one sentence."""
    pinned = (hook.host_key,) if hook.host_key is not None else ()
    if hook.host is not None:
        return hook.host, pinned
    name, system = job.get("server_name"), _system(job, server)
    host = system.get("ip") or server.get("ip")
    if not isinstance(host, str) or not host:
        raise HookFailed(f"nobody knows the address of {name}: it did not phone in", False)
    keys = pinned or tuple(
        key for key in map(clean_host_key, map(str, system.get("host_keys") or ())) if key
    )
    if not keys:
        raise HookFailed(
            f"{name} reported no host key when it phoned in: give the hook a --host-key", False
        )
    return host, keys


def _code(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
