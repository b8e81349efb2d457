"""Addresses in shared rows: http or https, and never with a password."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.proto.urls import BMC_SCHEMES, why_no_url


@pytest.mark.parametrize(
    "url", ["http://a/b", "https://10.0.0.1:8443/redfish/v1/Systems/1", "http://[::1]:80/x?y@z"]
)
def test_addresses_of_the_web_are_taken(url: str) -> None:
    assert why_no_url(url, 100) is None


@pytest.mark.parametrize(
    "url",
    ["http://root:calvin@10.0.0.9/", "https://root@bmc/", "ftp://a:b@c/", "http://:pw@h/"],
)
def test_a_user_name_or_password_is_refused_and_not_repeated(url: str) -> None:
    assert why_no_url(url, 100) == (
        "must not hold a user name or password: every node can read it"
    )


@pytest.mark.parametrize(
    "url",
    ["", "bmc.example", "ftp://h/", "http://", "http://a b/", "http://a\n/", "http://h:0/",
     "http://h:99999/", "http://[::1/", "http://h/" + "x" * 100],
)  # fmt: skip
def test_what_no_node_could_fetch_is_refused(url: str) -> None:
    assert str(why_no_url(url, 100)).startswith("must be an http or https URL, not ")


def test_a_broken_address_is_shown_without_its_password() -> None:
    assert "secret" not in str(why_no_url("http://root:secret@[bad/", 100))


@given(st.text(max_size=120))
def test_garbage_never_raises(url: str) -> None:
    why_no_url(url, 100)
    why_no_url(f"ipmi://{url}", 100, BMC_SCHEMES)


@pytest.mark.parametrize("url", ["ipmi://10.0.0.9", "ipmi://[::1]:6230", "https://10.0.0.9"])
def test_a_bmc_may_be_named_by_ipmi_too(url: str) -> None:
    assert why_no_url(url, 100, BMC_SCHEMES) is None


def test_an_image_is_not_fetched_by_ipmi() -> None:
    assert why_no_url("ipmi://h", 100) == "must be an http or https URL, not 'ipmi://h'"


@pytest.mark.parametrize("url", ["ipmi://h/x", "ipmi://h?x", "ipmi://h:1/#x"])
def test_an_ipmi_address_has_no_path(url: str) -> None:
    wrong = why_no_url(url, 100, BMC_SCHEMES)
    assert wrong == f"must be ipmi://HOST or ipmi://HOST:PORT, not {url!r}"


def test_other_schemes_of_bmcs_are_refused_with_what_would_be_right() -> None:
    wrong = why_no_url("telnet://h", 100, BMC_SCHEMES)
    assert wrong == "must be an http, https or ipmi URL, not 'telnet://h'"
