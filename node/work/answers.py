"""What an installer reads about its machine: rendered when it asks, and never kept.

It knows rows, capabilities and secrets that this node can open. Rules: a text goes out only
under the capability of the order's current attempt, to an address that is the machine's; what
the order's template is, its digest says; secrets and capabilities are put into the rendered
text, so that no expression sees them; a text with secrets goes out once an attempt, which the
job's runner decides and keeps before the text leaves.
"""

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from typing import Any, Final

import trio

from mesh.errors import MeshError, Refused
from mesh.host.log import get_log
from mesh.proto import tables
from mesh.proto.template_text import (
    FORMATS,
    META_DATA,
    SECRET_PATTERN,
    VENDOR_DATA,
    Answers,
    TemplateRefused,
    digest,
    is_nocloud,
    text_of,
)
from mesh.proto.template_values import Links, Network, values_for
from node.boot.ports import Refusal
from node.proto.net_boot_script import STARTED, answers_url, media_url
from node.work.capabilities import ANSWERS, MEDIA, PHONE, Capabilities
from node.work.net_boot import NetBootDesk, Ordered
from node.work.ports import Credentials
from node.work.rows import SiteRows

RENDER_S: Final = 5.0
RENDERS_MAX: Final = 2
log = get_log("answers")

Tell = Callable[[str, int, Mapping[str, Any], str, str], Awaitable[tuple[int, str]]]
"""``tell(job, attempt, news, capability, ip)``: status and sentence of the job's runner."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks for which text."""

    server: Mapping[str, Any]
    job: Mapping[str, Any]
    ordered: Ordered
    answers: Answers
    ip: str


class AnswerDesk:
    """Makes the texts."""

    def __init__(
        self,
        rows: SiteRows,
        capabilities: Capabilities,
        net_boot: NetBootDesk,
        credentials: Credentials,
        tell: Tell,
        is_bound: Callable[[str, str], bool],
    ) -> None:
        self._rows, self._capabilities, self._net_boot = rows, capabilities, net_boot
        self._credentials, self._tell, self._is_bound = credentials, tell, is_bound
        self._renders = trio.CapacityLimiter(RENDERS_MAX)

    async def text(
        self, capability: str, name: str, client_ip: str, now_ms: int
    ) -> str | Refusal:
        """Return the text of a file under a capability, or why it does not go out."""
        try:
            asked = self._asked(capability, client_ip, now_ms)
        except Refused as exc:
            log.warning("answers refused", ip=client_ip, reason=str(exc))
            return Refusal(str(exc))
        job, attempt = asked.ordered.job, asked.ordered.attempt
        if name == STARTED:
            await self._tell(job, attempt, {"started": True}, capability, client_ip)
            return "go on\n"
        form = asked.answers.format
        if is_nocloud(form) and name in (META_DATA, VENDOR_DATA):
            return _nocloud(name, asked)
        if name != FORMATS[form].file:
            return Refusal("there is no such file for this machine", 404)
        try:
            made, once = await self._made(asked, now_ms)
        except (Refused, MeshError) as exc:
            sentence = f"the answers for {asked.server.get('name')} cannot be made: {exc}"
            log.warning("answers not made", job=job, reason=str(exc))
            await self._tell(job, attempt, {"trouble": sentence}, capability, client_ip)
            return Refusal(sentence, 409)
        news = {"answers": {"file": name, "ip": client_ip, "once": once}}
        status, sentence = await self._tell(job, attempt, news, capability, client_ip)
        if status != 200 and (once or status == 410):
            log.warning("answers refused", job=job, ip=client_ip, reason=sentence)
            return Refusal(sentence, status)
        who = asked.server.get("name")
        log.info("answers given", job=job, ip=client_ip, name=who, file=name)
        return made

    def checked(self, capability: str, now_ms: int) -> Ordered:
        """Return the order whose installer shows a capability; raises Refused."""
        return self._order_of(capability, now_ms).ordered

    def _asked(self, capability: str, client_ip: str, now_ms: int) -> Asked:
        asked = self._order_of(capability, now_ms)
        macs = [str(mac) for mac in asked.server.get("macs") or ()]
        if not any(self._is_bound(mac, client_ip) for mac in macs):
            raise Refused("this address is not bound to that machine")
        return replace(asked, ip=client_ip)

    def _order_of(self, capability: str, now_ms: int) -> Asked:
        job = self._rows.job(self._capabilities.job_of(capability))
        server = self._rows.server(str(job["server"])) if job and job.get("server") else None
        if job is None or server is None:
            raise Refused("there is no such order at this site")
        found = self._capabilities.check(ANSWERS, capability, str(server["id"]), now_ms)
        ordered = self._net_boot.ordered(server)
        if ordered is None or (ordered.job, ordered.attempt) != (found.job, found.attempt):
            raise Refused(f"{server.get('name')} is not being installed so any more")
        if ordered.boot.answers is None:
            raise Refused(f"{server.get('name')} boots what asks no questions")
        return Asked(server, job, ordered, ordered.boot.answers, "")

    async def _made(self, asked: Asked, now_ms: int) -> tuple[str, bool]:
        """Return the text, and whether there are secrets in it; raises Refused."""
        row = self._rows.store.get(tables.FLEET, tables.TEMPLATE, asked.answers.template)
        found = text_of(row.body if row is not None else None)
        if found is None:
            raise Refused(f"there is no template {asked.answers.template} here")
        if digest(*found) != asked.answers.digest:
            raise Refused(
                f"the template {asked.answers.template} was changed after the order; cancel"
                " the job and give the order again"
            )
        hidden: dict[str, str] = {}
        values = self._values(asked, now_ms, lambda text: _hide(hidden, text))
        with trio.move_on_after(RENDER_S):
            made = await trio.to_thread.run_sync(
                _render, found[1], values, abandon_on_cancel=True, limiter=self._renders
            )
            text, names = made
            opened = {mark: self._open(name) for name, mark in names.items()}
            return _put_in(text, {**hidden, **opened}), bool(names)
        raise Refused(f"rendering it takes over {RENDER_S:.0f} s")

    def _values(self, asked: Asked, now_ms: int, hide: Callable[[str], str]) -> dict[str, Any]:
        about = str(asked.server["id"]), asked.ordered.job, asked.ordered.attempt, now_ms
        minted = [self._capabilities.mint(p, *about) for p in (PHONE, MEDIA, ANSWERS)]
        urls = self._rows.boot_urls()
        if None in minted or not urls:
            raise Refused("this node has no site secret yet")
        phone, media, answers = (str(one) for one in minted)
        kernel, *initrds = asked.ordered.boot.files
        links = Links(
            phone_url=hide(f"{urls[0]}/phone/v1/{phone}"),
            started_url=hide(answers_url(urls[0], answers, STARTED)),
            kernel_url=hide(media_url(urls[0], media, kernel.asset)),
            initrd_urls=[hide(media_url(urls[0], media, one.asset)) for one in initrds],
        )
        params = asked.job["params"]
        return values_for(
            asked.server, hostname=str(params.get("hostname") or asked.server.get("name")),
            ssh_keys=[str(key) for key in params.get("ssh_keys") or ()],
            given=asked.answers.vars, cmdline=asked.ordered.boot.cmdline,
            network=self._network(asked.ip), links=links,
        )  # fmt: skip

    def _network(self, ip: str) -> Network:
        """Return the network of an address, as far as the site's subnets tell it."""
        for row in self._rows.store.rows(self._rows.scope, tables.SUBNET):
            try:
                network = IPv4Network(row.key)
                if IPv4Address(ip) not in network:
                    continue
            except (AddressValueError, NetmaskValueError, ValueError):
                continue
            dns = [str(server) for server in row.body.get("dns") or ()]
            gateway, mask = str(row.body.get("router") or ""), str(network.netmask)
            return Network(address=ip, netmask=mask, gateway=gateway, dns=dns)
        return Network(address=ip, netmask="", gateway="", dns=[])

    def _open(self, name: str) -> str:
        assert SECRET_PATTERN.match(name), "the template was checked"
        value = self._credentials(name).get("password")
        if not isinstance(value, str) or not value:
            raise Refused(f"the secret {name} holds no password")
        if not value.isprintable():
            raise Refused(f"the secret {name} holds a character that no answer can")
        return value


def _render(text: str, values: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the text and, by name, the marks that stand in it for secrets."""
    from mesh.proto.template import check, render  # Jinja2 is loaded when it is needed

    names: dict[str, str] = {}
    try:
        made = render(
            check(text), values, lambda name: names.setdefault(name, secrets.token_hex(16))
        )
    except TemplateRefused as exc:
        raise Refused(str(exc)) from exc
    return made, names


def _hide(hidden: dict[str, str], text: str) -> str:
    mark = secrets.token_hex(16)
    hidden[mark] = text
    return mark


def _put_in(text: str, marks: Mapping[str, str]) -> str:
    """Put values in the places of their marks, at once: no value is looked into again."""
    if not marks:
        return text
    return re.sub("|".join(marks), lambda found: marks[found[0]], text)


def _nocloud(name: str, asked: Asked) -> str:
    if name == VENDOR_DATA:
        return ""
    host = asked.job["params"].get("hostname") or asked.server.get("name")
    instance = f"{asked.ordered.job}-{asked.ordered.attempt}"
    return f"instance-id: {instance}\nlocal-hostname: {host}\n"
