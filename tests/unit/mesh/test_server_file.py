"""Files of servers: every fault with its line, nothing believed that cannot be."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.proto import server_file
from mesh.proto.server_file import COLUMNS, Fault, decode, read
from mesh.rest.import_types import ImportRequest
from mesh.rest.imports import plan_import
from mesh.rest.orders import KnownLists

HEAD = "name,mac,bmc,bmc_user,bmc_password,bmc_secret,ip,mode,tags,serial,site"
GOOD = f"""{HEAD}
db-1,52:54:00:00:00:01 52-54-00-00-00-02,,,,,10.0.0.7,monitored,rack:1;gold,CZ1,lab
db-2,,https://10.9.0.2,root,"pa,ss ""w",,,,,,
"db-3",525400000003,ipmi://10.9.0.3,,,bmc-3,,managed,,,
"""


def test_a_csv_file_is_read() -> None:
    found = read(GOOD, "csv")
    assert found.faults == []
    one, two, three = found.entries
    assert one.macs == ("52:54:00:00:00:01", "52:54:00:00:00:02")
    assert (one.mode, one.tags, one.site) == ("monitored", ("rack:1", "gold"), "lab")
    assert (two.line, two.user, two.password, two.mode) == (3, "root", 'pa,ss "w', "managed")
    assert "pa,ss" not in repr(two)
    assert (three.macs, three.secret) == (("52:54:00:00:00:03",), "bmc-3")


def test_the_same_as_json() -> None:
    text = json.dumps(
        [{"name": "db-1", "macs": ["52:54:00:00:00:01"], "tags": ["a", "b"], "ip": None}],
        indent=1,
    )
    (one,) = read(text, "json").entries
    assert (one.line, one.macs, one.tags, one.ip) == (
        2,
        ("52:54:00:00:00:01",),
        ("a", "b"),
        None,
    )


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a b,525400000001,,,,,,,,,", "'a b' is no server name"),
        (",525400000001,,,,,,,,,", "the name is missing"),
        ("x,52540000000,,,,,,,,,", "'52540000000' is no MAC"),
        ("x,ff:ff:ff:ff:ff:ff,,,,,,,,,", "no machine's MAC"),
        ("x,,,,,,,,,,", "give a MAC, or a bmc with its login"),
        ("x,,https://10.0.0.1,,,,,,,,", "give a MAC, or a bmc with its login"),
        ("x,,ipmi://10.0.0.1,u,p,,,,,,", "IPMI does not tell it"),
        ("x,525400000001,10.0.0.1,,,,,,,,", "bmc must be an http, https or ipmi URL"),
        ("x,525400000001,https://u:secret@h/,,,,,,,,", "must not hold a user name"),
        ("x,525400000001,https://h,u,,,,,,,", "go together"),
        ("x,525400000001,https://h,u,p,s,,,,,", "not both"),
        ("x,525400000001,,u,p,,,,,,", "a login without bmc"),
        ("x,525400000001,,,,,10.0.0.256,,,,", "no IPv4 address"),
        ("x,525400000001,,,,,,maybe,,,", "mode 'maybe'"),
        ("x,525400000001,,,,,,,a!b,,", "'a!b' is no tag"),
        (f"x,525400000001,,,,,,,,{'S' * 101},", "serial number has more than 100"),
        ("x,525400000001,,,,,,,,,No Site", "no name of a site"),
        (f"x,525400000001,https://h,u,{'p' * 257},,,,,,", "more than 256 characters"),
        (f"{'x' * 600},525400000001,,,,,,,,,", "at most 512 characters"),
        ("x,525400000001\x07,,,,,,,,,", "printable"),
        ("x,525400000001", "2 fields, but the first line names 11"),
    ],
)
def test_each_fault_is_told_with_its_line_and_stops_nobody_else(row: str, says: str) -> None:
    found = read(
        f"{HEAD}\nok1,525400000011,,,,,,,,,\n{row}\nok2,525400000012,,,,,,,,,\n", "csv"
    )
    assert [entry.name for entry in found.entries] == ["ok1", "ok2"]
    assert {fault.line for fault in found.faults} == {3}
    assert says in found.faults[0].detail
    assert all("secret@" not in f.detail and "\n" not in f.detail for f in found.faults)


def test_what_stands_twice_is_told_at_the_second_line() -> None:
    rows = [
        "a,525400000001,https://10.0.0.1/,u,p,,10.0.0.9,,,CZ1,",
        "a,525400000002,,,,,,,,,",
        "b,52:54:00:00:00:01,,,,,,,,,",
        "c,525400000003,HTTPS://10.0.0.1,u,p,,,,,,",
        "d,525400000004,,,,,10.0.0.9,,, cz1,",
        "e,525400000005,,,,,,,,None,",
        "f,525400000006,,,,,,,,None,",
    ]
    found = [(f.line, f.detail) for f in read("\n".join([HEAD, *rows]), "csv").faults]
    assert [line for line, _ in found] == [3, 4, 5, 6, 6]
    assert all("stands in line 2 already" in detail for _, detail in found)


@pytest.mark.parametrize(
    ("text", "format_", "line", "says"),
    [
        ("", "csv", 1, "no server"),
        ("nmae,mac\n", "csv", 1, "did you mean name?"),
        ("name,mac,macs\n", "csv", 1, "stands there twice"),
        ("mac\n525400000001\n", "csv", 1, "must name columns"),
        ('name,mac\n"x,525400000001\n', "csv", 2, "no CSV"),
        ('name,mac\n"x"y,525400000001\n', "csv", 2, "no CSV"),
        ("name,mac\nx,\0\n", "csv", 2, "NUL"),
        ("x" * (server_file.BYTES_MAX + 1), "csv", 1, "longer than"),
        ("{}", "json", 1, "no JSON list"),
        ("[]", "json", 1, "no server"),
        ("[\n7]", "json", 2, "must be an object"),
        ('[\n{"name": "x"\n "mac": 1}]', "json", 3, "no JSON"),
        ('[{"name": "x", "name": "y"}]', "json", 1, "stands there twice"),
        ('[{"name": 7}]', "json", 1, "name must be a text"),
        ('[{"nam": "x"}]', "json", 1, "did you mean name?"),
        ('[{"name": "x", "mac": ["525400000001", 3]}]', "json", 1, "list of texts"),
        ('[{"name":"x","mac":"525400000001"}\n{}]', "json", 2, "comma"),
        ('[{"name":"x","mac":"525400000001"}]\nmore', "json", 1, "after the list"),
        ("[" * 100_000, "json", 1, "no JSON"),
    ],
)
def test_what_is_no_file_of_servers_is_said(text, format_, line, says) -> None:
    faults = read(text, format_).faults
    assert any(f.line == line and says in f.detail for f in faults), faults


def test_bad_encodings_are_told_by_line() -> None:
    assert decode("\ufeffname\n".encode()) == "name\n"
    for data, says in (
        (b"name\nx\xff", "line 2: the byte 0xff is not UTF-8"),
        ("name".encode("utf-16"), "UTF-16"),
        (b"x" * (server_file.BYTES_MAX + 1), "at most"),
    ):
        with pytest.raises(ValueError, match=says):
            decode(data)


def test_too_many_rows_are_not_read() -> None:
    rows = [f"s{n},02:00:00:00:{n // 256:02x}:{n % 256:02x}" for n in range(1001)]
    found = read("\n".join(["name,mac", *rows]), "csv")
    assert len(found.entries) == 1000
    assert found.faults == [Fault(1002, "more than 1000 servers: split the file")]


CELLS = st.sampled_from(
    ["x", "y", "52:54:00:00:00:01", "https://10.0.0.1", "ipmi://h", "u", "monitored",
     "10.0.0.1", "", " ", "\t", '"', "a,b", "é", "\u202e", "CZ1"]
) | st.text(max_size=8)  # fmt: skip


@given(
    st.lists(st.sampled_from([*COLUMNS, "macs", "x"]), max_size=8, unique=True),
    st.lists(st.lists(CELLS, max_size=8), max_size=8),
)
def test_lines_of_faults_are_those_of_the_file(head: list[str], rows: list[list[str]]) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([head, *rows])
    text = out.getvalue()
    found = read(text, "csv")
    lines = text.count("\n") + 1
    assert all(1 <= fault.line <= lines for fault in found.faults)
    assert all(fault.detail.isprintable() for fault in found.faults)
    told = {fault.line for fault in found.faults}
    for entry in found.entries:
        assert entry.name
        assert entry.macs or entry.bmc
        if entry.line not in told:
            assert 1 < entry.line <= lines


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | CELLS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*COLUMNS, "x"]), inner, max_size=5)
    ),
    max_leaves=15,
)


@given(
    st.text(max_size=60) | st.lists(JSON, max_size=4).map(json.dumps),
    st.sampled_from(["csv", "json"]),
)
def test_garbage_never_raises(text: str, format_: str) -> None:
    for whole in (text, f"{HEAD}\n{text}", f"[{text}]"):
        read(whole, format_)


# -- beside what is known ------------------------------------------------------------------


def known(*servers: dict[str, Any]) -> KnownLists:
    base = {"id": "i", "name": "old", "site": "lab", "macs": [], "bmc": None, "serial": None,
            "ip": None}  # fmt: skip
    nodes = [{"id": "n", "name": "n", "site": "lab"}]
    return KnownLists(
        servers=[{**base, **server} for server in servers], pending=[], jobs=[], images={},
        nodes=nodes,
    )  # fmt: skip


def planned(text: str, beside: KnownLists, secrets: Any = (), site: str | None = "lab") -> Any:
    ids = iter(range(1000))
    asked = ImportRequest(format="csv", text=text)
    return plan_import(asked, beside, lambda: str(next(ids)), site=site, secrets=secrets)


def test_a_file_becomes_orders_and_secrets() -> None:
    plan = planned(GOOD, known(), {"bmc-3"})
    assert plan.faults == []
    one, two, three = plan.servers
    assert (one.draft.kind, one.draft.params["macs"][0]) == (
        "server.adopt",
        "52:54:00:00:00:01",
    )
    assert "inspect" not in one.draft.params, "a monitored server with a MAC is asked nothing"
    assert (two.draft.kind, two.draft.params["inspect"]) == ("server.accept", "oob")
    assert two.draft.params["bmc"] == {"url": "https://10.9.0.2", "secret": "bmc-db-2"}
    assert json.loads(two.sealed.value) == {"username": "root", "password": 'pa,ss "w'}
    assert "pa,ss" not in repr(plan) + json.dumps(plan.answer(False, ["a", "b", "c"], ["g"]))
    assert three.draft.params["machine"] == "52:54:00:00:00:03"


@pytest.mark.parametrize(
    ("server", "line"),
    [
        ({"name": "db-1"}, 2), ({"macs": ["52:54:00:00:00:02"]}, 2), ({"serial": "cz1"}, 2),
        ({"ip": "10.0.0.7"}, 2), ({"bmc": "https://10.9.0.2/"}, 3), ({"name": "db-3"}, 4),
    ],
)  # fmt: skip
def test_what_a_server_has_already_stops_the_whole_file(
    server: dict[str, Any], line: int
) -> None:
    plan = planned(GOOD, known(server), {"bmc-3"})
    assert plan.servers == []
    assert [(f.line, "already" in f.detail) for f in plan.faults] == [(line, True)]


def test_sites_and_secrets_must_be_there() -> None:
    lines = [(f.line, f.detail) for f in planned(GOOD, known(), {"bmc-db-2"}, "far").faults]
    assert [line for line, _ in lines] == [3, 3, 4, 4]
    assert "there is a secret bmc-db-2 already" in str(lines)
    assert "there is no secret bmc-3" in str(lines)
    assert "there is no site far" in str(lines)
    assert "no site is named" in str(planned(GOOD, known(), {"bmc-3"}, None).faults)
    assert "only a hub seals" in str(planned(GOOD, known(), None).faults)
