"""What is taken from the local network, and what is told to it."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from mesh.mdns import SERVICE, finding, site_tag

NODE, ROOT = "a" * 32, bytes(20)
TAG = site_tag(ROOT, "oslo")


def info(port: object = 4770, tag: object = TAG, *hosts: str) -> SimpleNamespace:
    found = list(hosts or ("10.0.0.1",))
    return SimpleNamespace(port=port, properties={b"site": tag}, parsed_addresses=lambda: found)


def test_the_sites_name_is_not_told():
    assert b"oslo" not in TAG
    assert site_tag(ROOT, "bergen") != TAG
    assert site_tag(bytes(19) + b"1", "oslo") != TAG


def test_a_member_of_our_site_is_found_where_it_says():
    assert finding(TAG, f"{NODE}.{SERVICE}", info()) == (NODE, [("10.0.0.1", 4770)])


def test_what_cannot_be_dialled_is_left_out():
    said = info(1, TAG, "fe80::1", "224.0.0.1", "0.0.0.0", "127.0.0.1", "10.0.0.2")
    assert finding(TAG, f"{NODE}.{SERVICE}", said) == (NODE, [("10.0.0.2", 1)])


def test_other_sites_other_names_and_no_port_are_dropped():
    name = f"{NODE}.{SERVICE}"
    assert finding(TAG, name, info(1, site_tag(ROOT, "bergen"))) is None
    assert finding(TAG, name, info(1, None)) is None
    assert finding(TAG, name, info(0)) is None
    assert finding(TAG, f"{NODE}._http._tcp.local.", info()) is None
    assert finding(TAG, f"printer.{SERVICE}", info()) is None


@given(st.text(), st.none() | st.integers(), st.none() | st.binary(), st.lists(st.text()))
def test_garbage_never_raises(name: str, port: object, tag: object, hosts: list[str]):
    finding(TAG, f"{name}.{SERVICE}", info(port, tag, *hosts))
    finding(TAG, f"{NODE}.{SERVICE}", info(port, TAG, *hosts))
