"""The steps of ``server.password``: a BMC gets a new password that only the site's nodes know.

It knows rows, BMCs and functions that seal, and keeps no plaintext beyond a call. Rules: the
new login is sealed to every active node of the site, under a new id, before the BMC hears of
it; it counts for nobody before the BMC has taken it and has let us in with it; then every
server behind that BMC names the new login, in one transaction. So a crash at any point leaves a
login that some node can open and that works, and who is no member any more knows neither.
"""

import json
import secrets
import string
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from drivers.errors import DeviceRefused
from mesh.errors import Refused
from mesh.proto import tables
from mesh.secrets import copy_key
from node.proto.job import Seen
from node.work.ports import Credentials, Holds, OpenBmc, Tx
from node.work.rows import SiteRows

MakeCopies = Callable[[str, bytes], Mapping[str, Mapping[str, Any]]]
"""Secret id and plaintext -> a SECRET_COPY body for each active node of the site."""
PASSWORD_CHARS: Final = 16
"""What every BMC takes: IPMI 1.5 ends at 16 bytes."""
ALPHABETS: Final = (string.ascii_uppercase, string.ascii_lowercase, string.digits, "-_.")
NAME_CHARS_MAX: Final = 40


class Logins:
    """Makes, sets and switches logins of BMCs."""

    def __init__(
        self,
        rows: SiteRows,
        open_bmc: OpenBmc,
        credentials: Credentials,
        make_copies: MakeCopies,
        holds: Holds,
    ) -> None:
        self._rows = rows
        self._open_bmc = open_bmc
        self._credentials = credentials
        self._make_copies, self._holds = make_copies, holds

    async def act(self, do: str, job: Mapping[str, Any], attempts: int) -> dict[str, Any]:
        """Carry a step out; raises Refused or a DriverError with one sentence."""
        match do:
            case "seal-login":
                return await self._seal(job)
            case "new-password":
                return await self._set(job, attempts)
            case "switch-login":
                return await self._switch(job)
            case other:
                raise AssertionError(f"no such verb: {other}")

    async def probe(
        self, do: str, job: Mapping[str, Any]
    ) -> tuple[Seen, dict[str, Any] | None]:
        """Look whether a step's target stands."""
        new = new_id(job)
        match do:
            case "seal-login":
                return _seen(self._sealed(new)), {"secret": new}
            case "new-password":
                url, _ = self._bmc_of(job)
                lets_in = await self._lets_in(url, self._credentials(new), job)
                return _seen(lets_in), {"secret": new}
            case _:
                _, secret = self._bmc_of(job)
                return _seen(secret == new), {"secret": secret}

    # -- the steps ---------------------------------------------------------------------------

    async def _seal(self, job: Mapping[str, Any]) -> dict[str, Any]:
        new, scope = new_id(job), self._rows.scope
        _, old = self._bmc_of(job)
        if not self._sealed(new):
            login = {**self._credentials(old), "password": new_password()}
            copies = self._make_copies(new, json.dumps(login).encode())

            def fn(tx: Tx) -> None:
                for node, body in copies.items():
                    tx.put(scope, tables.SECRET_COPY, copy_key(node, new), body)

            await self._rows.store.write(fn)
        return {"secret": new, "instead": old}

    async def _set(self, job: Mapping[str, Any], attempts: int) -> dict[str, Any]:
        url, old = self._bmc_of(job)
        new = self._credentials(new_id(job))
        if attempts > 1 and await self._lets_in(url, new, job):
            return {"secret": new_id(job), "was": "set already"}
        may_send = partial(self._holds, job)
        async with self._open_bmc(url, self._credentials(old), may_send) as bmc:
            await bmc.set_password(str(new["password"]))
        async with self._open_bmc(url, new, may_send) as bmc:
            await bmc.power_state()
        return {"secret": new_id(job)}

    async def _switch(self, job: Mapping[str, Any]) -> dict[str, Any]:
        new, scope = new_id(job), self._rows.scope
        url, old = self._bmc_of(job)

        def fn(tx: Tx) -> list[str]:
            names: list[str] = []
            for row in tx.rows(scope, tables.SERVER):
                bmc = row.body.get("bmc")
                if isinstance(bmc, Mapping) and _same(bmc, url, (old, new)):
                    body = {**row.body, "bmc": {**bmc, "secret": new}}
                    tx.put(scope, tables.SERVER, row.key, body)
                    names.append(str(row.body.get("name")))
            return names

        return {"secret": new, "servers": sorted(await self._rows.store.write(fn))}

    # -- within ------------------------------------------------------------------------------

    async def _lets_in(
        self, url: str, login: Mapping[str, object], job: Mapping[str, Any]
    ) -> bool:
        try:
            async with self._open_bmc(url, login, partial(self._holds, job)) as bmc:
                await bmc.power_state()
        except DeviceRefused:
            return False
        return True

    def _bmc_of(self, job: Mapping[str, Any]) -> tuple[str, str]:
        """Return URL and secret of the server's BMC as they stand now."""
        server = self._rows.server(job["server"]) or {}
        bmc = server.get("bmc")
        if not isinstance(bmc, Mapping) or not bmc.get("url") or not bmc.get("secret"):
            raise Refused(f"{job.get('server_name')} has no BMC with a secret any more")
        return str(bmc["url"]), str(bmc["secret"])

    def _sealed(self, secret: str) -> bool:
        """Tell whether the new login is sealed to us already."""
        try:
            self._credentials(secret)
        except Refused:
            return False
        return True


def rotates(server: Mapping[str, Any] | None, params: Mapping[str, Any]) -> bool:
    """Tell whether a BMC gets a new password at enrol and release: said beside it."""
    bmc = params.get("bmc") or (server or {}).get("bmc")
    return isinstance(bmc, Mapping) and bmc.get("rotate") is True


def new_id(job: Mapping[str, Any]) -> str:
    """Return the id of the login that a job makes; the same whenever it is asked."""
    name = str(job.get("server_name") or "server")[:NAME_CHARS_MAX]
    return f"bmc-{name}-{str(job['id'])[-8:]}"


def new_password() -> str:
    """Return a random password of 90 bits and more with a character of each kind."""
    everything = "".join(ALPHABETS)
    while True:
        text = "".join(secrets.choice(everything) for _ in range(PASSWORD_CHARS))
        if all(set(text) & set(kind) for kind in ALPHABETS) and text[0].isalnum():
            return text


def _same(bmc: Mapping[str, Any], url: str, logins: tuple[str, ...]) -> bool:
    """Tell whether a server is behind the same BMC, by any way, with one of these logins."""
    ours, theirs = ({urlsplit(way)[:2] for way in ways.split(" ")}
                    for ways in (url, str(bmc.get("url"))))  # fmt: skip
    return bool(ours & theirs) and bmc.get("secret") in logins


def _seen(yes: bool) -> Seen:
    return "done" if yes else "not done"
