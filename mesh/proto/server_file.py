"""Lists of servers as files: CSV and JSON read to entries, with every fault and its line.

It knows no store and no network. Rules: a file is read to its end, so all faults are told at
once; nothing of a file with a fault is used; a sentence names the value that is wrong, but
never a password; everything has a limit.
"""

import csv
import difflib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any, Final

from mesh.proto.enrol import (
    MACS_MAX,
    MANAGED,
    MODES,
    SERIAL_CHARS_MAX,
    TAG,
    TAGS_MAX,
    real_serial,
)
from mesh.proto.ids import NAME_PATTERN, SITE_PATTERN, parse_mac
from mesh.proto.urls import BMC_SCHEMES, why_no_url

BYTES_MAX: Final = 512 << 10
ROWS_MAX: Final = 1000
FIELD_CHARS_MAX: Final = 512
FAULTS_MAX: Final = 200
"""Faults that are told; of more it is said how many there are."""
USER_CHARS_MAX: Final = 64
PASSWORD_CHARS_MAX: Final = 256
SHOWN_CHARS_MAX: Final = 60
COLUMNS: Final = (
    "name", "mac", "bmc", "bmc_user", "bmc_password", "bmc_secret", "ip", "mode", "tags",
    "serial", "site",
)  # fmt: skip
_ALIASES: Final[Mapping[str, str]] = {
    "macs": "mac", "bmc_url": "bmc", "user": "bmc_user", "bmc_username": "bmc_user",
    "password": "bmc_password", "secret": "bmc_secret", "tag": "tags",
    "serial_number": "serial",
}  # fmt: skip
_SPLIT: Final = re.compile(r"[\s;,|]+")


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What is wrong in one line (the first is 1), in one sentence."""

    line: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One server of a file."""

    line: int
    name: str
    macs: tuple[str, ...]
    bmc: str | None
    user: str | None
    password: str | None = field(repr=False)
    secret: str | None
    ip: str | None
    mode: str
    tags: tuple[str, ...]
    serial: str | None
    site: str | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file says: entries are worth something only when there is no fault."""

    entries: list[Entry]
    faults: list[Fault]


def decode(data: bytes) -> str:
    """Return the text of a file; ValueError is one sentence with the line that is wrong."""
    if len(data) > BYTES_MAX:
        raise ValueError(f"the file has {len(data)} bytes, at most {BYTES_MAX} are read")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError("line 1: the file is UTF-16; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        byte = data[exc.start]
        raise ValueError(f"line {line}: the byte {byte:#04x} is not UTF-8") from None
    return text


def read(text: str, format_: str) -> Reading:
    """Read a file; ``format_`` is csv or json."""
    faults: list[Fault] = []
    entries: list[Entry] = []
    if len(text) > BYTES_MAX:
        return Reading([], [Fault(1, f"the file is longer than {BYTES_MAX} characters")])
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        return Reading([], [Fault(line, "there is a NUL character: this is no text file")])
    rows = _json_rows(text, faults) if format_ == "json" else _csv_rows(text, faults)
    for number, (line, row) in enumerate(rows):
        if number >= ROWS_MAX:
            faults.append(Fault(line, f"more than {ROWS_MAX} servers: split the file"))
            break
        entry = _entry(line, row, faults)
        if entry is not None:
            entries.append(entry)
    if not entries and not faults:
        faults.append(Fault(1, "there is no server in the file"))
    faults += twice(entries)
    return Reading(entries, sorted(faults))


def twice(entries: list[Entry]) -> list[Fault]:
    """Return the faults of entries that claim what an earlier one has."""
    faults: list[Fault] = []
    seen: dict[tuple[str, str], int] = {}
    for entry in entries:
        for what, key, shown in claims(entry):
            first = seen.setdefault((what, key), entry.line)
            if first != entry.line:
                faults.append(
                    Fault(entry.line, f"{what} {shown} stands in line {first} already")
                )
    return faults


def claims(entry: Entry) -> Iterator[tuple[str, str, str]]:
    """Yield what only one server can have: kind, spelling that is compared, words."""
    yield "the name", entry.name, entry.name
    for mac in entry.macs:
        yield "the MAC", mac, mac
    if entry.bmc:
        yield "the BMC", entry.bmc.rstrip("/").lower(), entry.bmc
    if entry.ip:
        yield "the address", f"{entry.site} {entry.ip}", entry.ip
    serial = real_serial(entry.serial)
    if serial:
        yield "the serial number", serial, str(entry.serial)


# -- files -------------------------------------------------------------------------------------


def _csv_rows(text: str, faults: list[Fault]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    columns: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            faults.append(Fault(line, f"this is no CSV: {exc}"))
            return
        if not any(cell.strip() for cell in cells):
            continue
        if columns is None:
            columns = _columns(cells, line, faults)
            if columns is None:
                return
            continue
        if len(cells) != len(columns):
            faults.append(
                Fault(line, f"{len(cells)} fields, but the first line names {len(columns)}")
            )
            continue
        yield line, dict(zip(columns, (cell.strip() for cell in cells), strict=True))


def _columns(cells: list[str], line: int, faults: list[Fault]) -> list[str] | None:
    """Return the columns that the first line names, None when it cannot be used."""
    before, found = len(faults), list[str]()
    for cell in cells:
        name = cell.strip().lower().replace(" ", "_").replace("-", "_")
        name = _ALIASES.get(name, name)
        if name not in COLUMNS:
            faults.append(Fault(line, _unknown(cell)))
        elif name in found:
            faults.append(Fault(line, f"the column {name} stands there twice"))
        found.append(name)
    if "name" not in found and len(faults) == before:
        faults.append(Fault(line, f"the first line must name columns, of {', '.join(COLUMNS)}"))
    return found if len(faults) == before else None


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name.strip().lower()[:40], COLUMNS, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(COLUMNS)}"
    return f"there is no column {_shown(name)}{hint}"


class _Twice(ValueError):
    """An object names a field twice."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return found


def _json_rows(text: str, faults: list[Fault]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a list one by one, so that each has its line."""
    decoder = json.JSONDecoder(object_pairs_hook=_pairs)
    at = _skip(text, 0)
    if text[at : at + 1] != "[":
        faults.append(Fault(_line(text, at), "this is no JSON list of servers: [{...}, {...}]"))
        return
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        line = _line(text, at)
        try:
            value, at = decoder.raw_decode(text, at)
        except _Twice as exc:
            faults.append(Fault(line, f"the field {_shown(str(exc))} stands there twice"))
            return
        except json.JSONDecodeError as exc:
            faults.append(Fault(_line(text, exc.pos), f"this is no JSON: {exc.msg}"))
            return
        except (ValueError, RecursionError):
            faults.append(Fault(line, "this is no JSON that can be read"))
            return
        yield from _object(line, value, faults)
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            faults.append(Fault(_line(text, at), "a comma or ] is missing here"))
            return
    if text[_skip(text, at + 1) :]:
        faults.append(Fault(_line(text, at + 1), "there is something after the list"))


def _object(line: int, value: Any, faults: list[Fault]) -> Iterator[tuple[int, dict[str, Any]]]:
    if not isinstance(value, dict):
        faults.append(Fault(line, "a server must be an object: {...}"))
        return
    row: dict[str, Any] = {}
    for name, item in value.items():
        column = _ALIASES.get(name, name)
        if column not in COLUMNS:
            faults.append(Fault(line, _unknown(name)))
        elif isinstance(item, list) and column in ("mac", "tags"):
            texts = [one for one in item if isinstance(one, str)]
            row[column] = " ".join(texts)
            if len(texts) != len(item):
                faults.append(Fault(line, f"{column} must be a list of texts"))
        elif item is None or isinstance(item, str):
            row[column] = (item or "").strip()
        else:
            faults.append(Fault(line, f"{column} must be a text"))
    yield line, row


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


# -- entries -----------------------------------------------------------------------------------


def _entry(line: int, row: Mapping[str, str], faults: list[Fault]) -> Entry | None:
    """Return the server of one row; None when something is wrong, which is told."""
    before = len(faults)

    def wrong(detail: str) -> None:
        faults.append(Fault(line, detail))

    said = {name: value for name, value in row.items() if value}
    for name, value in said.items():
        if len(value) > FIELD_CHARS_MAX or not value.isprintable():
            wrong(f"{name} must be printable and at most {FIELD_CHARS_MAX} characters long")
    if len(faults) > before:
        return None
    name, mode = said.get("name", ""), said.get("mode", MANAGED).lower()
    if not NAME_PATTERN.match(name):
        wrong(f"{_shown(name)} is no server name: letters, digits, . _ -" if name
              else "the name is missing")  # fmt: skip
    if mode not in MODES:
        wrong(f"mode {_shown(mode)} is neither {' nor '.join(MODES)}")
    macs = _macs(said.get("mac", ""), wrong)
    tags = tuple(dict.fromkeys(filter(None, _SPLIT.split(said.get("tags", "")))))
    for tag in tags:
        if not TAG.match(tag):
            wrong(f"{_shown(tag)} is no tag: at most 32 letters, digits, . _ : = -")
    if len(tags) > TAGS_MAX:
        wrong(f"{len(tags)} tags, at most {TAGS_MAX}")
    _check_texts(said, wrong)
    _check_bmc(said, bool(macs), wrong)
    if len(faults) > before:
        return None
    return Entry(
        line=line, name=name, macs=macs, bmc=said.get("bmc"), user=said.get("bmc_user"),
        password=said.get("bmc_password"), secret=said.get("bmc_secret"), ip=said.get("ip"),
        mode=mode, tags=tags, serial=said.get("serial"), site=said.get("site"),
    )  # fmt: skip


def _macs(text: str, wrong: Any) -> tuple[str, ...]:
    words = [word for word in _SPLIT.split(text) if word]
    if len(words) > MACS_MAX:
        wrong(f"{len(words)} MACs, at most {MACS_MAX}")
        return ()
    found: list[str] = []
    for word in words:
        mac = parse_mac(word)
        if mac is None:
            wrong(f"{_shown(word)} is no MAC address")
        elif int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
            wrong(f"{mac} is no machine's MAC address")
        else:
            found.append(mac)
    return tuple(dict.fromkeys(found))


def _check_texts(said: Mapping[str, str], wrong: Any) -> None:
    if "ip" in said:
        try:
            IPv4Address(said["ip"])
        except ValueError:
            wrong(f"{_shown(said['ip'])} is no IPv4 address")
    if len(said.get("serial", "")) > SERIAL_CHARS_MAX:
        wrong(f"the serial number has more than {SERIAL_CHARS_MAX} characters")
    if "site" in said and not SITE_PATTERN.match(said["site"]):
        wrong(f"{_shown(said['site'])} is no name of a site")
    if "bmc_secret" in said and not NAME_PATTERN.match(said["bmc_secret"]):
        wrong(f"{_shown(said['bmc_secret'])} is no id of a secret")
    if len(said.get("bmc_user", "")) > USER_CHARS_MAX:
        wrong(f"bmc_user has more than {USER_CHARS_MAX} characters")
    if len(said.get("bmc_password", "")) > PASSWORD_CHARS_MAX:
        wrong(f"bmc_password has more than {PASSWORD_CHARS_MAX} characters")


def _check_bmc(said: Mapping[str, str], macs: bool, wrong: Any) -> None:
    """A server is known by its MACs, or by a BMC that can be asked for them."""
    bmc, login = said.get("bmc"), "bmc_user" in said or "bmc_password" in said
    if bmc is not None:
        why = why_no_url(bmc, FIELD_CHARS_MAX, BMC_SCHEMES)
        if why is not None:
            wrong(f"bmc {why}")
            return
    if login and not ("bmc_user" in said and "bmc_password" in said):
        wrong("bmc_user and bmc_password go together")
    if login and "bmc_secret" in said:
        wrong("give bmc_user and bmc_password, or bmc_secret, not both")
    opens = login or "bmc_secret" in said
    if opens and bmc is None:
        wrong("a login without bmc, the address that it is for")
    if not macs and (bmc is None or not opens):
        wrong("give a MAC, or a bmc with its login that tells it")
    elif not macs and bmc is not None and bmc.startswith("ipmi:"):
        wrong("give a MAC: IPMI does not tell it")


def _shown(text: str) -> str:
    return repr(text[:SHOWN_CHARS_MAX])
