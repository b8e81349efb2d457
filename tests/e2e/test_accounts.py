"""People and programs at a real hub: made with the command line, kept out at once."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mesh.rest.client import ApiError, Target
from tests.support.fleet import one_sentence, run
from tests.support.hub_process import HubProcess, running_hub

PASSWORD = "a long enough one"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with running_hub(tmp_path_factory.mktemp("people") / "hub", "--port", "0") as found:
        yield found


@contextmanager
def signed_in(hub: HubProcess, account: str, password: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=hub.url, verify=False, trust_env=False) as browser:
        answer = browser.post(
            "/api/v1/session", json={"account": account, "password": password}
        )
        assert answer.status_code == 201, answer.text
        cookie = answer.headers["set-cookie"].split(";")[0]
        browser.headers |= {
            "Cookie": cookie, "X-CSRF-Token": answer.json()["item"]["csrf"],
        }  # fmt: skip
        yield browser


def account(hub: HubProcess, *words: str | Path, password: str | None = None) -> Any:
    more = ("--password-file", "-") if password else ()
    return run("account", *words, *more, "--data", hub.data, stdin=password or "")


def test_people_are_made_by_the_command_line_and_kept_out_at_once(hub: HubProcess) -> None:
    made = account(hub, "add", "ann", "--role", "operator", password=PASSWORD)
    assert made.code == 0, made.err
    with signed_in(hub, "ann", PASSWORD) as browser:
        assert browser.get("/api/v1/session").json()["item"]["role"] == "operator"
        assert browser.get("/api/v1/accounts").status_code == 403
        assert account(hub, "role", "ann", "viewer").code == 0
        assert browser.get("/api/v1/servers").status_code == 401, "the session is over"
    with signed_in(hub, "ann", PASSWORD) as browser:
        order = {"kind": "server.power", "server": "x", "params": {"on": True}}
        assert browser.post("/api/v1/orders", json=order).status_code == 403
        assert account(hub, "disable", "ann").code == 0
        assert browser.get("/api/v1/servers").status_code == 401
    listed = json.loads(account(hub, "list", "--json").out)
    assert listed["schema"] == "rackmesh/accounts/1"
    assert [(a["name"], a["disabled"]) for a in listed["items"]] == [
        ("admin", False), ("ann", True),
    ]  # fmt: skip
    assert "disabled" in account(hub, "list").out
    assert account(hub, "remove", "ann").code == 0
    assert account(hub, "enable", "ann").code == 4


def test_who_lost_the_password_comes_back_over_the_local_socket(hub: HubProcess) -> None:
    for words in (("disable", "admin"), ("remove", "admin"), ("role", "admin", "viewer")):
        said = account(hub, *words)
        assert (said.code, "last enabled admin" in one_sentence(said)) == (7, True)
    with signed_in(hub, "admin", hub.password) as browser:
        said = account(hub, "password", "admin", password="the new password")
        assert said.code == 0, said.err
        assert browser.get("/api/v1/servers").status_code == 401
    with signed_in(hub, "admin", "the new password") as browser:
        assert browser.get("/api/v1/accounts").status_code == 200
    said = account(hub, "password", "admin", password="short")
    assert (said.code, "8 characters" in one_sentence(said)) == (2, True)
    said = account(hub, "password", "admin")
    assert (said.code, "--password-file" in one_sentence(said)) == (2, True)


def test_a_token_works_from_elsewhere_until_it_is_revoked(
    hub: HubProcess, tmp_path: Path
) -> None:
    here = ("--data", hub.data)
    made = run("apitoken", "create", "ci", "--role", "viewer", "--days", "1", *here)
    assert made.code == 0, made.err
    target = Target(url=hub.url, token=made.out.strip(), tls_sha256=hub.fingerprint)
    with hub.api(target) as api:
        assert api.get("/session")["item"] | {"csrf": 0} == {
            "account": "token:ci", "via": "token", "role": "viewer", "csrf": 0,
        }  # fmt: skip
        with pytest.raises(ApiError, match="needs the role operator"):
            api.post("/tokens", {"site": "fra1"})
        (token,) = json.loads(run("apitoken", "list", "--json", *here).out)["items"]
        assert token["last_used_ms"] is not None
        assert run("apitoken", "revoke", token["id"], *here).code == 0
        with pytest.raises(ApiError, match="revoked"):
            api.get("/servers")
    assert "revoked" in run("apitoken", "list", *here).out
    secret = made.out.strip().partition(".")[2].encode()
    assert not [p for p in hub.data.rglob("*") if p.is_file() and secret in p.read_bytes()]
