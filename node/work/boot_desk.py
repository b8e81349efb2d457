"""What a machine shall do next: the answers of work to the boot listener.

It implements ``BootDecisions`` (``node/boot/ports.py``) over the rows of the site and the
runners of this node. Rules: any node answers a script and takes an inventory, only a job's
runner binds a machine, other nodes forward; unknown machines may only leave their inventory; a
known server's changes only by a machine that is bound, or, while none is, from the address that
is the server's; a capability is never logged; garbage gets a status and one sentence."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from mesh.errors import MeshError, Refused, StoreFull
from mesh.host.log import get_log
from mesh.proto.lifecycle import monitored
from node.boot.ports import Refusal
from node.hooks.desk import HOST_KEYS_MAX, host_keys
from node.proto import agent_wire as wire
from node.proto.agent_desk import IDLE_S, WAIT_POLL_S, Answer
from node.proto.boot_script import local_disk_script, ramdisk_script
from node.proto.job import current_step
from node.proto.net_boot_script import BOOTS
from node.work.answers import AnswerDesk
from node.work.capabilities import BOOT, PHONE
from node.work.engine import Work
from node.work.machines import Machines
from node.work.net_boot import Media, NetBootDesk
from node.work.rows import plan_of

log = get_log("boot-desk")

REBOOT_AGAIN_MS: Final = 20_000
"""An idle ramdisk is told to restart at most this often."""
TOLD_MAX: Final = 4096
RPC_METHOD: Final = "agent.call"
PHONE_PATH: Final = "/phone/v1"
HOST_KEYS: Final = "host_keys"
"""In a phone-in that is handed on to its runner."""
MEDIA_PATH: Final = "/media/v1"
ANSWERS_PATH: Final = "/answers/v1"
_HEADERS: Final = ("x-rackmesh-session", "x-rackmesh-counter", "x-rackmesh-signature")
_LOCAL_DISK: Final = frozenset({"active", "deploy-wait", "deploy-wait failed"})
_RUNS: Final = frozenset({"running", "retry_wait", "held"})

Reply = tuple[int, dict[str, Any]]
_NO_ROOM: Final[Reply] = (503, {"detail": "this node waits for room on its disk; ask again"})


class BootDesk:
    """Decides for the boot listener of this node."""

    def __init__(
        self,
        work: Work,
        is_bound: Callable[[str, str], bool],
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """``is_bound(mac, address)``: whether DHCP gives this address to this machine."""
        self._work = work
        self._is_bound = is_bound
        self._rows = work.rows
        self._entropy = entropy
        self.machines = Machines(work.rows, work.now_ms)
        self._net_boot = NetBootDesk(work.rows, work.capabilities)
        self._answers = AnswerDesk(
            work.rows, work.capabilities, self._net_boot, work.credentials, self._say, is_bound
        )
        self._told: dict[str, int] = {}
        self.dropped = 0

    # -- scripts ---------------------------------------------------------------------------

    async def script_for(self, mac: str, client_ip: str) -> str | Refusal:
        """Return the script for a machine whose address has been checked by the caller."""
        urls = self._rows.boot_urls()
        if not urls:
            return Refusal("no node of this site says where its boot listener is")
        server = self._rows.server_by_mac(mac)
        if server is None:
            return ramdisk_script(urls, mac)
        name = server.get("name")
        if monitored(server):
            return Refusal(f"{name} is monitored, so it is given nothing to boot")
        job = self._wants_ramdisk(server)
        if job is not None:
            capability = self._work.capabilities.mint(
                BOOT, str(server["id"]), job["id"], job["attempt"], self._work.now_ms()
            )
            if capability is None:
                return Refusal(f"this node has no site secret yet, so {name} cannot be trusted")
            log.info("ramdisk given", mac=mac, ip=client_ip, job=job["id"], name=name)
            return ramdisk_script(urls, mac, capability=capability)
        ordered = self._net_boot.ordered(server)
        if ordered is not None:
            log.info("network boot given", mac=mac, ip=client_ip, job=ordered.job, name=name)
            return self._net_boot.script(server, ordered, mac, urls, self._work.now_ms())
        if self._from_disk(server):
            log.info("local disk given", mac=mac, ip=client_ip, name=name)
            return local_disk_script(urls)
        return ramdisk_script(urls, mac)

    def _wants_ramdisk(self, server: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the job of a server that is at a step in the ramdisk, or None."""
        job = self._rows.job(server.get("job"))
        if job is None or job.get("state") not in _RUNS or monitored(server):
            return None
        step = current_step(job, plan_of(job))
        return job if step is not None and step.ramdisk else None

    def _from_disk(self, server: Mapping[str, Any]) -> bool:
        if server.get("state") in _LOCAL_DISK:
            return True
        job = self._rows.job(server.get("job"))
        steps = (job or {}).get("steps") or ()
        return any(e.get("id") == "first-boot" and e.get("state") == "done" for e in steps)

    # -- the agent -------------------------------------------------------------------------

    async def agent(
        self, path: str, body: bytes, headers: Mapping[str, str], client_ip: str
    ) -> Reply:
        """Answer one POST of a ramdisk's agent."""
        if self._rows.store.full:
            return _NO_ROOM
        try:
            return await self._agent(path, body, headers, client_ip)
        except StoreFull:
            return _NO_ROOM
        except Refused as exc:
            return 403, {"detail": str(exc)}
        except MeshError as exc:
            return 503, {"detail": f"the node that runs the job cannot be reached: {exc}"}

    async def _agent(
        self, path: str, body: bytes, headers: Mapping[str, str], client_ip: str
    ) -> Reply:
        if path == "/agent/v1/hello":
            return await self._hello(body, client_ip)
        if path not in ("/agent/v1/next", "/agent/v1/progress"):
            return 404, {"detail": "no such call"}
        call = wire.parse_call(headers, path, body)
        value = wire.parse_json(body)
        if call is None or value is None:
            return self._drop("this is not a signed call of an agent")
        job_id = call.session.partition(".")[0]
        job = self._rows.job(job_id)
        if job is None:
            return 403, {"detail": "this session is unknown; say hello again"}
        if job["runner"] != self._rows.node_id:
            return await self._forward(job["runner"], path, body, headers, client_ip)
        runner = self._work.runner(job_id)
        if runner is None:
            return 403, {"detail": f"the job is {job.get('state')}; say hello again"}
        if path == "/agent/v1/next":
            return _reply(await runner.next(call, wire.parse_report(value.get("done"))))
        progress = wire.parse_progress(value)
        if progress is None:
            return self._drop("this is not a progress report")
        return _reply(await runner.progress(call, *progress))

    async def _hello(self, body: bytes, client_ip: str) -> Reply:
        hello = wire.parse_hello(body)
        if hello is None:
            return self._drop("this is not a hello of an agent")
        server = self._rows.server_by_mac(hello.mac)
        if server is None:
            kept = await self.machines.keep(hello, client_ip)
            return _idle("inventory sent" if kept else "too many unknown machines, not kept")
        stranger = self._stranger(server, hello)
        if stranger is not None:
            return 409, {"detail": stranger}
        job = self._rows.job(server.get("job"))
        if hello.cap is not None and job is not None:
            bound = await self._bind(hello, job, server, body, client_ip)
            if bound is not None:
                return bound
        if (job or {}).get("agent") is None and self._is_bound(hello.mac, client_ip):
            await self.machines.keep(hello, client_ip)
        wants = self._wants_ramdisk(server)
        if wants is not None and self._may_tell(hello.mac):
            answer = {**_idle(f"a job wants {server.get('name')}: restart")[1], "do": "reboot"}
            return 200, answer
        return _idle(f"{server.get('name')} is {server.get('state')}")

    async def _bind(
        self,
        hello: wire.Hello,
        job: Mapping[str, Any],
        server: Mapping[str, Any],
        body: bytes,
        client_ip: str,
    ) -> Reply | None:
        """Bind a machine that shows a capability; None: the capability is of no use now."""
        assert hello.cap is not None
        try:
            found = self._work.capabilities.check(
                BOOT, hello.cap, str(server["id"]), self._work.now_ms()
            )
        except Refused as exc:
            log.warning("capability refused", mac=hello.mac, ip=client_ip, reason=str(exc))
            return None
        if found.job != job["id"] or job.get("state") not in _RUNS:
            return None
        if job["runner"] != self._rows.node_id:
            path = "/agent/v1/hello"
            return await self._forward(job["runner"], path, body, {}, client_ip)
        runner = self._work.runner(job["id"])
        if runner is None:
            return None
        session = f"{job['id']}.{self._entropy(16).hex()}"
        answer = await runner.hello(hello, found.attempt, session)
        if answer.status == 403:
            return None  # of an older attempt: it restarts and gets a new one
        if answer.body.get("bound"):
            await self.machines.keep(hello, client_ip)
        return _reply(answer)

    def _stranger(self, server: Mapping[str, Any], hello: wire.Hello) -> str | None:
        """Say that other hardware speaks for a server while its own is bound, or None."""
        job = self._rows.job(server.get("job"))
        agent = (job or {}).get("agent")
        if hello.cap is not None or not isinstance(agent, Mapping):
            return None  # with a capability the job's desk decides, and parks
        for field, seen in (("uuid", hello.uuid), ("serial", hello.serial)):
            known = agent.get(field)
            if known and known != seen:
                sentence = (
                    f"a second machine says it is {server.get('name')}:"
                    f" {field} {seen or 'unknown'} instead of {known}"
                )
                log.error("alarm", mac=hello.mac, job=server.get("job"), error=sentence)
                return sentence
        return None

    def _may_tell(self, mac: str) -> bool:
        now = self._work.now_ms()
        if now - self._told.get(mac, -REBOOT_AGAIN_MS) < REBOOT_AGAIN_MS:
            return False
        if len(self._told) >= TOLD_MAX:
            self._told.clear()
        self._told[mac] = now
        return True

    # -- phone-in --------------------------------------------------------------------------

    async def phone_in(
        self, capability: str, fields: Mapping[str, str], client_ip: str
    ) -> Reply:
        """Take the phone-in of an installed operating system."""
        if self._rows.store.full:
            return _NO_ROOM
        try:
            return await self._phone_in(capability, fields, client_ip)
        except StoreFull:
            return _NO_ROOM
        except Refused as exc:
            return 403, {"detail": str(exc)}
        except MeshError as exc:
            return 503, {"detail": f"the node that runs the job cannot be reached: {exc}"}

    async def _phone_in(
        self, capability: str, fields: Mapping[str, str], client_ip: str
    ) -> Reply:
        job = self._rows.job(self._work.capabilities.job_of(capability))
        if job is None or not job.get("server"):
            return 404, {"detail": "there is no such job at this site"}
        found = self._work.capabilities.check(
            PHONE, capability, str(job["server"]), self._work.now_ms()
        )
        takes = self._takes_phone_in(job)
        if takes["runner"] != self._rows.node_id:
            text, said = capability.encode(), {HOST_KEYS: "\n".join(host_keys(fields))}
            return await self._forward(takes["runner"], PHONE_PATH, text, said, client_ip)
        runner = self._work.runner(takes["id"])
        if runner is not None:
            log.info("phone-in", job=job["id"], name=job.get("server_name"), ip=client_ip)
            if takes["id"] != job["id"]:
                return _reply(await runner.strayed())
            system = {"ip": client_ip, "host_keys": host_keys(fields)}
            return _reply(await runner.phone_in(found.attempt, system))
        if job.get("state") == "succeeded":
            return 200, {"detail": f"{job.get('server_name')} is active already"}
        return 409, {"detail": f"the job is {job.get('state')}"}

    def _takes_phone_in(self, job: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the job that wants the server in its ramdisk now, since it must know that the
        disk has booted instead; else the job whose system phones in."""
        server = self._rows.server(str(job["server"])) or {}
        now = self._rows.job(server.get("job"))
        if now is None or now.get("state") not in _RUNS:
            return job
        return now if any(step.do == "ramdisk" for step in plan_of(now)) else job

    # -- what is booted off the network ----------------------------------------------------

    async def media(
        self, capability: str, name: str, asked_bytes: int, client_ip: str
    ) -> str | Refusal | None:
        """Say which asset a machine may read under its capability."""
        try:
            found = self._net_boot.media(capability, name, asked_bytes, self._work.now_ms())
            if found.news is not None:
                await self._tell(found, found.news, capability, client_ip)
        except Refused as exc:
            log.warning("media refused", ip=client_ip, reason=str(exc))
            return Refusal(str(exc))
        return found.asset

    async def _tell(
        self, found: Media, news: Mapping[str, Any], capability: str, client_ip: str
    ) -> None:
        """Tell a job's runner what was heard; no boot waits for one that is away."""
        job = self._rows.job(found.job) or {}
        if job.get("state") not in _RUNS or self._rows.store.full:
            return
        runner = self._work.runner(found.job)
        if runner is not None:
            await runner.heard(found.attempt, news)
            return
        body = json.dumps({"cap": capability, "news": news}).encode()
        try:
            await self._forward(str(job["runner"]), MEDIA_PATH, body, {}, client_ip)
        except MeshError as exc:
            log.warning("boot not told", job=found.job, error=exc)

    async def disc(self, capability: str, client_ip: str) -> str | Refusal:
        """Return what the loader on a server's boot disc is told."""
        try:
            return self._work.discs.config(capability)
        except Refused as exc:
            log.warning("disc refused", ip=client_ip, reason=str(exc))
            return Refusal(str(exc))

    async def answers(self, capability: str, name: str, client_ip: str) -> str | Refusal:
        """Return a text that an installer reads about its machine."""
        if self._rows.store.full:
            return Refusal(_NO_ROOM[1]["detail"], _NO_ROOM[0])
        return await self._answers.text(capability, name, client_ip, self._work.now_ms())

    async def _say(
        self, job: str, attempt: int, news: Mapping[str, Any], capability: str, client_ip: str
    ) -> tuple[int, str]:
        """Tell a job's runner what was heard; return what it says, status and sentence."""
        runner = self._work.runner(job)
        try:
            if runner is not None:
                status, answer = _reply(await runner.heard(attempt, news))
            else:
                body = json.dumps({"cap": capability, "news": news}).encode()
                at = str((self._rows.job(job) or {}).get("runner"))
                status, answer = await self._forward(at, ANSWERS_PATH, body, {}, client_ip)
        except MeshError as exc:
            return 503, f"the node that runs the job cannot be reached: {exc}"
        return status, str(answer.get("detail"))

    async def _take_answers(self, body: bytes, ip: str) -> Reply:
        """Take from another node that an installer asked it; ``ip`` is the machine's."""
        value = wire.parse_json(body) or {}
        capability, news = value.get("cap"), value.get("news")
        if not isinstance(capability, str) or not isinstance(news, Mapping):
            return self._drop("this is no news of an installer")
        found = self._answers.checked(capability, self._work.now_ms())
        runner = self._work.runner(found.job)
        if runner is None:
            return 409, {"detail": "the job does not run here"}
        return _reply(await runner.heard(found.attempt, news))

    async def _take_news(self, body: bytes) -> Reply:
        """Take from another node what it heard of a machine."""
        value = wire.parse_json(body) or {}
        capability, news = value.get("cap"), value.get("news")
        if not isinstance(capability, str) or not isinstance(news, Mapping):
            return self._drop("this is no news of a machine")
        found = self._net_boot.media(capability, BOOTS, 0, self._work.now_ms())
        runner = self._work.runner(found.job)
        if runner is None:
            return 409, {"detail": "the job does not run here"}
        return _reply(await runner.heard(found.attempt, news))

    # -- between nodes ---------------------------------------------------------------------

    async def _forward(
        self, runner: str, path: str, body: bytes, headers: Mapping[str, str], client_ip: str
    ) -> Reply:
        message = {
            "path": path, "body": body, "ip": client_ip,
            "headers": {name: headers[name] for name in _HEADERS if name in headers},
        }  # fmt: skip
        answer = await self._work.peers.rpc(
            runner, RPC_METHOD, message, self._work.limits.forward_s
        )
        return int(answer["status"]), dict(answer["body"])

    def rpc_handlers(self) -> dict[str, Callable[[str, Any], Any]]:
        """Return the calls that members may make on us."""
        return {RPC_METHOD: self._rpc_agent}

    async def _rpc_agent(self, peer: str, body: Any) -> Any:
        """Answer for a machine that spoke with another node of the site; never forward
        again."""
        self._rows.check_near(peer)
        if not isinstance(body, Mapping):
            raise Refused("agent.call takes a map")
        path, raw, ip = body.get("path"), body.get("body"), body.get("ip")
        given = body.get("headers")
        if not isinstance(path, str) or not isinstance(raw, bytes) or not isinstance(ip, str):
            raise Refused("agent.call takes {path, body, headers, ip}")
        headers = given if isinstance(given, Mapping) else {}
        if not self._is_ours(path, raw, headers):
            raise Refused("the job does not run here")
        if path == MEDIA_PATH:
            status, answer = await self._take_news(raw)
        elif path == ANSWERS_PATH:
            status, answer = await self._take_answers(raw, ip)
        elif path == PHONE_PATH:
            said = dict(enumerate(str(headers.get(HOST_KEYS, "")).split("\n")[:HOST_KEYS_MAX]))
            keys = {f"pub_key_{number}": key for number, key in said.items()}
            status, answer = await self.phone_in(raw.decode("ascii", "replace"), keys, ip)
        else:
            clean = {str(key): str(value) for key, value in headers.items()}
            status, answer = await self.agent(path, raw, clean, ip)
        return {"status": status, "body": answer}

    def _is_ours(self, path: str, raw: bytes, headers: Mapping[str, Any]) -> bool:
        job_id: str | None
        if path in (MEDIA_PATH, ANSWERS_PATH):
            cap = (wire.parse_json(raw) or {}).get("cap")
            job_id = self._work.capabilities.job_of(str(cap))
        elif path == PHONE_PATH:
            job_id = self._work.capabilities.job_of(raw.decode("ascii", "replace"))
        elif path == "/agent/v1/hello":
            hello = wire.parse_hello(raw)
            cap = hello.cap if hello is not None else None
            job_id = self._work.capabilities.job_of(cap) if cap else None
        else:
            job_id = str(headers.get("x-rackmesh-session", "")).partition(".")[0]
        job = self._rows.job(job_id)
        if job is not None and path == PHONE_PATH and job.get("server"):
            job = self._takes_phone_in(job)
        return job is not None and job["runner"] == self._rows.node_id

    def _drop(self, detail: str) -> Reply:
        self.dropped += 1
        return 400, {"detail": detail}


def _reply(answer: Answer) -> Reply:
    return answer.status, answer.body


def _idle(detail: str) -> Reply:
    body = {
        "session": "", "bound": False, "poll_s": WAIT_POLL_S, "idle_s": IDLE_S,
        "detail": detail,
    }  # fmt: skip
    return 200, body
