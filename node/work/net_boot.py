"""Servers that boot off the network: which script they get, and what they read.

It knows rows and capabilities; scripts are made by ``node/proto/net_boot_script.py``, what is
proved by ``node/proto/net_boot_proof.py``. Rules: a server boots what its order named, by asset
id, while the order's job says so and for as long as the server is active afterwards; a file
goes out only under a capability of that order; of what is read only counters are kept here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.errors import CodecError, Refused
from mesh.host.log import get_log
from mesh.proto.net_boot import NetBoot, read_net_boot, writes_disks
from node.boot.ports import Refusal
from node.proto.agent_desk import Answer
from node.proto.boot_script import local_disk_script
from node.proto.install_proof import READ, hear_install, judge_install, was_read
from node.proto.job import Effect, Job, current_step
from node.proto.net_boot_proof import READ_ENOUGH_BYTES, Proved, hear, judge
from node.proto.net_boot_script import BOOTS, install_script, iso_script, live_script
from node.work.capabilities import ANSWERS, MEDIA, PHONE, Capabilities
from node.work.rows import SiteRows, plan_of

COUNTED_MAX: Final = 1024
"""Boots whose reads are counted at a time; beyond it the oldest are forgotten."""
BOOTS_FROM_NETWORK: Final = frozenset({"active", "deploy-wait", "deploy-wait failed"})
_RUNS: Final = frozenset({"running", "retry_wait", "held"})
log = get_log("boot-desk")


@dataclass(frozen=True, slots=True)
class Ordered:
    """What a server shall boot now, and by whose order."""

    boot: NetBoot
    job: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Media:
    """A file that may go to a machine; ``news`` is what the job's runner should hear now."""

    server: Mapping[str, Any]
    job: str
    attempt: int
    asset: str | None
    """None: the machine only says that it boots."""
    news: Mapping[str, Any] | None


class NetBootDesk:
    """Decides for servers that boot off the network."""

    def __init__(self, rows: SiteRows, capabilities: Capabilities) -> None:
        self._rows, self._capabilities = rows, capabilities
        self._read: dict[tuple[str, int], int] = {}

    def ordered(self, server: Mapping[str, Any]) -> Ordered | None:
        """Return what a server shall boot off the network now, or None."""
        job = self._rows.job(server.get("job"))
        if job is not None and job.get("state") in _RUNS:
            step = current_step(job, plan_of(job))
            if step is not None and step.net_boot:
                return _ordered(job["params"].get("boot"), job["id"], job["attempt"])
        body = server.get("boot")
        if server.get("state") not in BOOTS_FROM_NETWORK or not isinstance(body, Mapping):
            return None
        return _ordered(body, body.get("job"), body.get("attempt"))

    def script(
        self, server: Mapping[str, Any], ordered: Ordered, mac: str, urls: list[str], now: int
    ) -> str | Refusal:
        """Return the script that boots it."""
        about = str(server["id"]), ordered.job, ordered.attempt, now
        media = self._capabilities.mint(MEDIA, *about)
        phone = self._capabilities.mint(PHONE, *about)
        if media is None or phone is None:
            return Refusal(
                f"this node has no site secret yet, so {server.get('name')} cannot be trusted"
            )
        if ordered.boot.kind == "iso":
            return iso_script(urls, mac, ordered.boot, media)
        if ordered.boot.answers is not None:
            if self._was_read(ordered):
                return local_disk_script(urls)  # it was installed, or shall be looked at
            answers = str(self._capabilities.mint(ANSWERS, *about))
            return install_script(urls, mac, ordered.boot, media, answers)
        phones = [f"{url}/phone/v1/{phone}" for url in urls[:2]]
        hostname = str(server.get("hostname") or server.get("name"))
        return live_script(urls, mac, ordered.boot, media, phones, hostname)

    def _was_read(self, ordered: Ordered) -> bool:
        """Tell whether the installer of this attempt has read its answers."""
        heard = (self._rows.job(ordered.job) or {}).get("net_boot") or {}
        return heard.get("attempt") == ordered.attempt and READ in heard

    def media(self, capability: str, name: str, asked_bytes: int, now_ms: int) -> Media:
        """Return what a request under a media capability gets; raises Refused.

        ``name``: an asset id without its prefix, or BOOTS; ``asked_bytes``: length of the range
        that is asked for.
        """
        job = self._rows.job(self._capabilities.job_of(capability))
        server = self._rows.server(str(job["server"])) if job and job.get("server") else None
        if job is None or server is None:
            raise Refused("there is no such order at this site")
        found = self._capabilities.check(MEDIA, capability, str(server["id"]), now_ms)
        ordered = self.ordered(server)
        if ordered is None or (ordered.job, ordered.attempt) != (found.job, found.attempt):
            raise Refused(f"{server.get('name')} does not boot that any more")
        if name == BOOTS:
            return Media(server, found.job, found.attempt, None, {"boots": True})
        asset = f"b3:{name}"
        if asset not in {file.asset for file in ordered.boot.files}:
            raise Refused(f"{server.get('name')} does not boot that file")
        news = None
        if ordered.boot.kind == "iso":
            news = self._count((found.job, found.attempt), asked_bytes)
        return Media(server, found.job, found.attempt, asset, news)

    def _count(self, boot: tuple[str, int], asked_bytes: int) -> Mapping[str, Any] | None:
        """Count what is read of an ISO; return news once it is enough to prove something."""
        before = self._read.pop(boot, 0)
        read = self._read[boot] = before + asked_bytes
        while len(self._read) > COUNTED_MAX:
            del self._read[next(iter(self._read))]
        return {"read_bytes": read} if before < READ_ENOUGH_BYTES <= read else None


def on_news(job: Job, news: Mapping[str, Any], now_ms: int) -> list[Effect]:
    """Take what was heard of a job's machine; it may be faster than the step that waits."""
    if not job.row["params"].get("boot"):
        return []
    heard = job.row.get("net_boot") or {}
    heard = hear(heard, job.row["attempt"], now_ms, news)
    job.row["net_boot"] = hear_install(heard, now_ms, news)
    return [*job.on_changed(now_ms), *look(job, now_ms)]


def look(job: Job, now_ms: int) -> list[Effect]:
    """Say what stands of a job whose machine boots off the network; called again and again."""
    step = job.current()
    if step is None or step.do != "net-boot":
        return []
    name = str(job.row.get("server_name"))
    attempt, heard = job.row["attempt"], job.row.get("net_boot") or {}
    if writes_disks(job.row["params"]["boot"]):
        found = judge_install(name, attempt, heard, heard.get("trouble"))
    else:
        found = judge(name, attempt, heard, now_ms)
    if isinstance(found, Proved):
        return job.on_done(step.id, found.evidence, now_ms)
    return job.on_waits(step.id, found.sentence, now_ms)


def refusal(job: Job, news: Mapping[str, Any]) -> Answer | None:
    """Say that what goes out once an attempt has gone out, or None; before it is heard."""
    heard, answers = job.row.get("net_boot") or {}, news.get("answers")
    if heard.get("attempt") != job.row["attempt"] or not isinstance(answers, Mapping):
        return None
    if not was_read(heard, answers):
        return None
    name = job.row.get("server_name")
    return Answer(410, {"detail": f"the answers for {name} went out once; retry the job"})


def assets_of(body: Any) -> list[str]:
    """Return the assets that something boots; none when it boots from its disk."""
    try:
        return [file.asset for file in read_net_boot(body).files] if body else []
    except CodecError:
        return []


def _ordered(body: Any, job: Any, attempt: Any) -> Ordered | None:
    try:
        boot = read_net_boot(body)
    except CodecError:
        return None
    if not isinstance(job, str) or not isinstance(attempt, int):
        return None
    return Ordered(boot, job, attempt)
