"""What agents say: vectors, limits, and garbage that never raises."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from node.proto import agent_wire as w

KEY = "ab" * 32
INVENTORY = {
    "system": {"vendor": "Acme", "product": "One", "serial": "S1", "uuid": "U-1"},
    "memory": {"bytes": 8 << 30},
    "disks": [{"name": "sda", "serial": "D1", "bytes": 10**9}],
}
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def hello(**changes: object) -> bytes:
    base = {
        "mac": "52-54-00-AA-00-01", "macs": ["5254.00aa.0002", 7, "x"], "cap": None, "key": KEY,
        "seal": KEY, "agent": "1", "inventory": INVENTORY,
    }  # fmt: skip
    return json.dumps({**base, **changes}).encode()


def test_a_hello_is_read_into_our_spelling() -> None:
    found = w.parse_hello(hello())
    assert found is not None
    assert found.mac == "52:54:00:aa:00:01"
    assert found.macs == ("52:54:00:aa:00:01", "52:54:00:aa:00:02")
    assert (found.uuid, found.serial) == ("u-1", "s1")
    assert w.summary(found.inventory) == "Acme One (S1) 8.0 GiB RAM 1 disk, 1.0 GB"


def test_what_is_too_much_is_cut_and_said() -> None:
    disks = [{"serial": str(n)} for n in range(100)]
    found = w.parse_hello(hello(inventory={"disks": disks}))
    assert found is not None
    assert len(found.inventory["disks"]) == w.ITEMS_MAX
    assert found.inventory["disks_cut"] == 100
    long = {str(n): ["x" * 256] * 20 for n in range(20)}
    found = w.parse_hello(hello(inventory=long))
    assert found is not None
    assert "longer than" in found.inventory["error"]
    assert w.parse_hello(b" " * (w.BODY_BYTES_MAX + 1)) is None


def test_missing_or_wrong_fields_are_no_hello() -> None:
    for wrong in ({"mac": "x"}, {"key": "zz" * 32}, {"key": KEY[2:]}, {"seal": 5}, {"cap": 5}):
        assert w.parse_hello(hello(**wrong)) is None
    assert w.parse_hello(b"[" * 100_000) is None
    found = w.parse_hello(hello(inventory={"a": "\x1b[2J\ud800"}))
    assert found is not None
    assert found.inventory == {"a": "?[2J?"}


def test_calls_need_three_good_headers() -> None:
    good = {
        "x-rackmesh-session": "j.s", "x-rackmesh-counter": "7",
        "x-rackmesh-signature": "ab" * 64,
    }  # fmt: skip
    call = w.parse_call(good, "/agent/v1/next", b"{}")
    assert call is not None
    assert call.counter == 7
    for name, value in (
        ("x-rackmesh-session", ""),
        ("x-rackmesh-session", "é"),
        ("x-rackmesh-counter", "-1"),
        ("x-rackmesh-counter", "²"),
        ("x-rackmesh-counter", "9" * 19),
        ("x-rackmesh-signature", "zz" * 64),
    ):
        assert w.parse_call({**good, name: value}, "/p", b"") is None


@given(st.binary(max_size=300))
def test_garbage_never_raises(data: bytes) -> None:
    w.parse_json(data)
    w.parse_hello(data)


@given(ANY_JSON, ANY_JSON)
def test_garbage_of_json_never_raises(value: object, other: object) -> None:
    w.parse_hello(json.dumps({"mac": value, "key": KEY, "inventory": other}).encode())
    w.parse_hello(hello(inventory=value, macs=other))
    report = w.parse_report(value)
    assert report is None or isinstance(report.ok, bool)
    w.parse_report({"step": "s", "ok": True, "evidence": value, "error": other})
    w.parse_progress({"step": "s", "done": value, "total": other})
    found = w.parse_hello(hello(inventory={"system": value, "disks": other, "memory": value}))
    assert found is not None
    w.summary(found.inventory)


@given(
    st.dictionaries(
        st.sampled_from(["x-rackmesh-session", "x-rackmesh-counter", "x-rackmesh-signature"]),
        st.text(),
    ),
    st.text(),
    st.binary(max_size=20),
)
def test_garbage_of_headers_never_raises(
    headers: dict[str, str], path: str, body: bytes
) -> None:
    w.parse_call(headers, path, body)
