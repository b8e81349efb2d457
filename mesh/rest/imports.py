"""From a file's entries to the orders that make them servers, or to all that is wrong.

Hub and node plan with the same function. It signs and writes nothing. Rule: a plan is made of a
file without any fault, also beside what is known already; whoever carries it out writes all of
it in one transaction.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from mesh.proto import server_file
from mesh.proto.enrol import MONITORED, OOB, real_serial
from mesh.proto.order import ACCEPT, ADOPT, NORMAL
from mesh.proto.server_file import FAULTS_MAX, Entry, Fault
from mesh.rest.enrolments import enrolment
from mesh.rest.import_types import Imported, ImportedServer, ImportRequest
from mesh.rest.orders import Draft
from mesh.rest.problems import RequestProblem

FORMATS: Final = ("csv", "json")
Body = Mapping[str, Any]


class Known(Protocol):
    """What must be known of the fleet."""

    def named(self, name_or_id: str) -> Sequence[Body]:
        """Return the servers with this id or name."""
        ...

    def owning(self, mac: str) -> Sequence[Body]:
        """Return the servers that have an interface with this MAC."""
        ...

    def having(self, field: str, value: str) -> Sequence[Body]:
        """Return the servers in whose field (bmc, serial, ip) this value stands."""
        ...

    def has_site(self, site: str) -> bool:
        """Tell whether there is a site of this name."""
        ...


@dataclass(frozen=True, slots=True)
class Sealed:
    """A login of a BMC that is to be sealed to the nodes of a site."""

    id: str
    site: str
    value: str

    def __repr__(self) -> str:
        """Show no password."""
        return f"Sealed({self.id!r})"


@dataclass(frozen=True, slots=True)
class Planned:
    """One server of the file."""

    entry: Entry
    draft: Draft
    sealed: Sealed | None


@dataclass(frozen=True, slots=True)
class Plan:
    """All of a file: what is to be done, or why nothing is."""

    servers: list[Planned]
    faults: list[Fault]
    rows: int

    def answer(self, dry_run: bool, jobs: Sequence[str], groups: Sequence[str]) -> Imported:
        """Return what is said of it; ``jobs`` are those of its servers, in their order."""
        shown = [
            ImportedServer(
                line=one.entry.line, name=one.entry.name, site=one.draft.site,
                mode=one.entry.mode, server=one.draft.server if jobs else None,
                job=jobs[number] if jobs else None,
                secret=one.sealed.id if one.sealed is not None else None,
            )
            for number, one in enumerate(self.servers)
        ]  # fmt: skip
        return Imported(
            dry_run=dry_run,
            rows=self.rows,
            faults=[{"line": f.line, "detail": f.detail} for f in self.faults[:FAULTS_MAX]],
            faults_more=max(0, len(self.faults) - FAULTS_MAX),
            servers=[] if self.faults else shown,
            groups=list(groups),
        )


def plan_import(
    asked: ImportRequest,
    known: Known,
    new_id: Callable[[], str],
    *,
    site: str | None,
    secrets: Collection[str] | None,
) -> Plan:
    """Plan an import; ``site`` is of rows that name none.

    ``secrets``: ids of all secrets; None at a node, which can seal no passwords.
    """
    if asked.format not in FORMATS:
        raise RequestProblem("bad-request", "format must be csv or json")
    reading = server_file.read(asked.text, asked.format)
    faults, planned = list(reading.faults), list[Planned]()
    for entry in reading.entries:
        wrong = _beside(entry, known, secrets, entry.site or site)
        faults += [Fault(entry.line, detail) for detail in wrong]
        if not wrong and not faults:
            try:
                planned.append(_planned(entry, str(entry.site or site), new_id()))
            except RequestProblem as exc:
                faults.append(Fault(entry.line, str(exc)))
    return Plan([] if faults else planned, sorted(faults), len(reading.entries))


def _beside(
    entry: Entry, known: Known, secrets: Collection[str] | None, site: str | None
) -> list[str]:
    """Return what of an entry does not go with what is there."""
    wrong: list[str] = []
    if site is None:
        wrong.append("no site is named: give --site, or a column site")
    elif not known.has_site(site):
        wrong.append(f"there is no site {site}")
    if known.named(entry.name):
        wrong.append(f"there is a server {entry.name} already")
    for mac in entry.macs:
        wrong += [f"the MAC {mac} is that of {_name(s)} already" for s in known.owning(mac)]
    if entry.bmc:
        found = known.having("bmc", entry.bmc)
        wrong += [f"the BMC {entry.bmc} is that of {_name(s)} already" for s in found]
    serial = real_serial(entry.serial)
    for server in known.having("serial", str(entry.serial)) if serial else ():
        wrong.append(f"the serial number {entry.serial} is that of {_name(server)} already")
    for server in known.having("ip", entry.ip) if entry.ip else ():
        if server.get("site") == site:
            wrong.append(f"the address {entry.ip} is that of {_name(server)} already")
    wrong += _login_beside(entry, secrets)
    return wrong


def _login_beside(entry: Entry, secrets: Collection[str] | None) -> list[str]:
    if secrets is None:
        if entry.password:
            return ["only a hub seals passwords: import there, or name a bmc_secret"]
        return []
    if entry.secret and entry.secret not in secrets:
        return [f"there is no secret {entry.secret}: rackmesh secret set {entry.secret}"]
    if entry.password and _secret_id(entry) in secrets:
        return [f"there is a secret {_secret_id(entry)} already: name it in bmc_secret"]
    return []


def _planned(entry: Entry, site: str, server: str) -> Planned:
    sealed = None
    if entry.password:
        login = {"username": entry.user, "password": entry.password}
        sealed = Sealed(_secret_id(entry), site, json.dumps(login))
    secret = sealed.id if sealed is not None else entry.secret
    only = entry.mode == MONITORED
    by_bmc = bool(entry.bmc and secret and not entry.bmc.startswith("ipmi:"))
    params: dict[str, Any] = {
        "name": entry.name, "macs": list(entry.macs), "ip": entry.ip,
        "tags": list(entry.tags), "serial": entry.serial,
        "bmc": {"url": entry.bmc, "secret": secret} if entry.bmc else None,
    }  # fmt: skip
    if by_bmc and not (only and entry.macs):
        params["inspect"] = OOB
    body = {"server": server, **enrolment(params)}
    if not only and entry.macs:
        body["machine"] = entry.macs[0]
    kind = ADOPT if only else ACCEPT
    draft = Draft(kind=kind, site=site, server=server, params=body, order_class=NORMAL)
    return Planned(entry, draft, sealed)


def _secret_id(entry: Entry) -> str:
    return f"bmc-{entry.name}"[:63]


def _name(server: Body) -> str:
    return str(server.get("name"))
