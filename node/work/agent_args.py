"""Arguments of an agent's command for the session that asks: where to read, what is sealed.

It knows URLs, capabilities and first-boot data. Rule: what is secret is sealed to the key of
the session that asked, anew for each."""

import base64
from collections.abc import Callable, Mapping
from typing import Any

from mesh.errors import Refused
from mesh.host.log import get_log
from node.proto.agent_desk import AgentDesk, Command
from node.proto.first_boot import first_boot, seal_first_boot
from node.proto.job import Job
from node.work.capabilities import PHONE, Capabilities
from node.work.discs import DiscDesk
from node.work.rows import SiteRows

log = get_log("jobs")


class AgentArgs:
    """Makes the arguments."""

    def __init__(
        self,
        rows: SiteRows,
        capabilities: Capabilities,
        order_params: Callable[[str], Mapping[str, Any]],
        discs: DiscDesk,
        now_ms: Callable[[], int],
    ) -> None:
        self._rows = rows
        self._capabilities = capabilities
        self._order_params = order_params
        self._discs, self._now_ms = discs, now_ms

    def args_for(self, job: Job, desk: AgentDesk, command: Command) -> Mapping[str, Any]:
        """Return a command's arguments; may raise Refused when something is missing here."""
        match command.do:
            case "write_image":
                asset = command.args["asset"]
                urls = [f"{url}/assets/{asset}" for url in self._rows.boot_urls()]
                return {**command.args, "urls": urls}
            case "first_boot":
                return {**command.args, "sealed": self._sealed(job, desk)}
            case _:
                return command.args

    def _sealed(self, job: Job, desk: AgentDesk) -> str:
        row = job.row
        attempt = int(row["phone_attempt"])
        capability = self._capabilities.mint(
            PHONE, str(row["server"]), row["id"], attempt, self._now_ms()
        )
        if capability is None:
            raise Refused("this node has no site secret yet")
        urls = [f"{url}/phone/v1/{capability}" for url in self._rows.boot_urls()]
        if not urls:
            raise Refused("no node of the site says where its boot listener is")
        data = first_boot(self._order_params(row["id"]), str(row["server"]), attempt, urls)
        if row.get("media"):  # where it boots without DHCP, its system gets no address by it
            found = self._discs.network(self._rows.server(str(row["server"])) or {})
            if found is None:
                raise Refused(f"no address is reserved for {row.get('server_name')} any more")
            data["network_config"] = found[1].network_config(found[0])
        sealed = seal_first_boot(desk.seal, str(desk.session), data)
        return base64.b64encode(sealed).decode()
