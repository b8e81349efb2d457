"""What the boot listener serves: scripts and files for firmware, the agent's calls, phone-in.

It knows no jobs: decisions come from a port. Rules: a script goes only to the address that is
bound to the MAC it is asked for; a file is looked up in the table of boot files; a capability
in a path never reaches the log.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address
from typing import Final
from urllib.parse import parse_qsl

from mesh.host.log import Log
from mesh.proto.ids import parse_mac
from node.boot.files import BootFiles
from node.boot.http import FileBody, Request, Response, Route
from node.boot.ports import BootDecisions, Refusal
from node.proto.boot_script import (
    FILE_PATH,
    SCRIPT_PATH,
    ask_script,
    refusal_script,
)
from node.proto.lease_snapshot import Snapshot

AGENT_PREFIX: Final = "/agent/v1/"
PHONE_PREFIX: Final = "/phone/v1/"
FIELDS_MAX: Final = 64
FIELD_CHARS_MAX: Final = 8192
CAPABILITY_CHARS_MAX: Final = 512


class BootRoutes:
    """The routes below /boot/, /agent/ and /phone/."""

    def __init__(
        self,
        bound: Callable[[str, str], bool],
        decisions: BootDecisions,
        files: BootFiles,
        urls: Callable[[], Sequence[str]],
        log: Log,
    ) -> None:
        self._bound = bound
        self._decisions = decisions
        self._files = files
        self._urls = urls
        self._log = log

    def routes(self) -> list[Route]:
        """Return what the listener shall serve."""
        return [
            Route("GET", SCRIPT_PATH, self._script),
            Route("GET", FILE_PATH, self._file),
            Route("POST", AGENT_PREFIX, self._agent, quiet=True),
            Route("POST", PHONE_PREFIX, self._phone, secret_tail=True),
        ]

    async def _script(self, request: Request) -> Response:
        said = request.query.get("mac")
        if not said:
            urls = self._urls()
            if not urls:
                return _refused(503, "no node of this site serves machines yet")
            return Response.text(ask_script(urls))
        mac = parse_mac(said)
        if mac is None:
            return _refused(400, "this is not a MAC address")
        if not self._bound(mac, request.client_ip):
            self._log.warning(
                "script asked from a foreign address", mac=mac, ip=request.client_ip
            )
            return _refused(403, "this address is not bound to that machine")
        script = await self._decisions.script_for(mac, request.client_ip)
        if isinstance(script, Refusal):
            self._log.info("script refused", mac=mac, reason=script.sentence)
            return Response.text(refusal_script(script.sentence))
        return Response.text(script)

    async def _file(self, request: Request) -> Response:
        file = self._files.get(request.path.removeprefix(FILE_PATH))
        if file is None:
            return Response.refusal(404, "there is no such boot file")
        if file.path is None:
            return Response(
                headers={"Content-Type": "application/octet-stream", "ETag": f'"{file.etag}"'},
                body=file.content,
            )
        return Response(body=FileBody(file.path, file.size, file.etag))

    async def _agent(self, request: Request) -> Response:
        status, answer = await self._decisions.agent(
            request.path, request.body, request.headers, request.client_ip
        )
        return Response.json(answer, status)

    async def _phone(self, request: Request) -> Response:
        capability = request.path.removeprefix(PHONE_PREFIX)
        if not capability or len(capability) > CAPABILITY_CHARS_MAX:
            return Response.refusal(404, "there is nothing under this path")
        fields = form_fields(request.headers, request.body)
        if fields is None:
            return Response.refusal(400, "the body is neither a form nor a JSON object")
        status, answer = await self._decisions.phone_in(capability, fields, request.client_ip)
        return Response.json(answer, status)


def is_bound(snapshot: Snapshot, mac: str, client_ip: str) -> bool:
    """Whether an address is the one that DHCP gives to a machine in one of its subnets."""
    try:
        return IPv4Address(client_ip) in snapshot.script_address(mac)
    except AddressValueError:
        return False


def is_ours(snapshot: Snapshot, client_ip: str) -> bool:
    """Whether an address lies in one of the site's subnets; all do while it has none."""
    return not snapshot.subnets or snapshot.subnet_of(IPv4Address(client_ip)) is not None


def form_fields(headers: Mapping[str, str], body: bytes) -> dict[str, str] | None:
    """Return the fields of a posted form or JSON object as text, None when it is neither."""
    try:
        text = body.decode()
        if headers.get("content-type", "").partition(";")[0].strip() == "application/json":
            value = json.loads(text or "{}")
            if not isinstance(value, dict) or len(value) > FIELDS_MAX:
                return None
            pairs = [(str(name), item) for name, item in value.items()]
        else:
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX)
        return {
            name: (item if isinstance(item, str) else json.dumps(item))[:FIELD_CHARS_MAX]
            for name, item in pairs
        }
    except (ValueError, RecursionError):
        return None


def _refused(status: int, sentence: str) -> Response:
    return Response.text(refusal_script(sentence), status)
