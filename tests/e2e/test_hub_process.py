"""A hub as a process: first start, restart, refusals, and what must never be on disk."""

import http.client
import json
import ssl
from pathlib import Path

import pytest

from mesh.rest.client import ApiError, Target
from tests.support.hub_process import everything_in, items, refused_start, running_hub

RSS_MIB_MAX = 96.0


def test_the_first_start_makes_everything_and_a_restart_keeps_it(tmp_path: Path) -> None:
    data = tmp_path / "hub"
    with running_hub(data, "--port", "0", "--site", "fra1") as hub:
        said, port, fingerprint = hub.output.read_text(), hub.port, hub.fingerprint
        password = hub.password
        assert password not in said
        assert f"https://127.0.0.1:{port}" in said
        assert "rackmesh node join --token-file" in said
        assert (data / "join-token").read_text().startswith("rm1.")
        for name in ("admin-password", "api-token", "join-token", "keys/ring.key"):
            assert (data / name).stat().st_mode & 0o777 == 0o600, name
        assert (data / "run" / "ports.json").stat().st_mode & 0o777 == 0o644
        with hub.api() as api:
            first = api.get("/status")["item"]
            assert (first["role"], first["healthy"]) == ("hub", True)
            assert len(items(api.get("/tokens"))) == 1
            (me,) = items(api.get("/nodes"))
            assert me["roles"] == ["hub"]
        assert hub.stop() == 0
        assert list((data / "run").iterdir()) == []
    with running_hub(data, "--port", str(port), "--site", "fra1") as hub:
        assert hub.fingerprint == fingerprint
        assert hub.password == password
        with hub.api() as api:
            again = api.get("/status")["item"]
            assert again["node"] == first["node"]
            assert again["root_fingerprint"] == first["root_fingerprint"]
            assert len(items(api.get("/tokens"))) == 1, "only the first start makes a token"
            assert [site["name"] for site in items(api.get("/sites"))] == ["fra1"]


def test_a_killed_hub_starts_again_with_all_it_had(tmp_path: Path) -> None:
    data = tmp_path / "hub"
    with running_hub(data, "--port", "0", "--site", "fra1") as hub:
        with hub.api() as api:
            api.post("/assets", {"name": "img", "url": None, "want": ["fra1"]})
            api.put("/assets/img/content", iter([b"x" * 5000]), 5000)
            before = api.get("/assets/img")["item"]["asset"]
            assert before.startswith("b3:"), "who wrote finds it at once"
        hub.process.kill()
        hub.process.wait()
    with running_hub(data, "--port", "0") as hub, hub.api() as api:
        assert api.get("/assets/img")["item"]["asset"] == before
        assert len(items(api.get("/tokens"))) == 1


def test_a_second_hub_on_the_folder_or_the_port_is_refused_in_one_sentence(
    tmp_path: Path,
) -> None:
    with running_hub(tmp_path / "hub", "--port", "0") as hub:
        code, said = refused_start(tmp_path / "hub", "--port", "0")
        assert code == 1
        assert said.count("\n") == 1
        assert f"in use by process {hub.process.pid}" in said
        code, said = refused_start(tmp_path / "other", "--port", str(hub.port))
        assert code == 1
        assert said.count("\n") == 1
        assert f"port {hub.port}" in said


def test_the_api_answers_over_the_port_to_who_has_token_and_fingerprint(
    tmp_path: Path,
) -> None:
    with running_hub(tmp_path / "hub", "--port", "0") as hub:
        with hub.api(hub.remote()) as api:
            assert api.get("/version")["item"]["role"] == "hub"
        with hub.api(Target(url=hub.url, token="wrong", tls_sha256=hub.fingerprint)) as api:
            with pytest.raises(ApiError, match="token is wrong") as refused:
                api.get("/version")
            assert refused.value.code == "denied"


def test_secrets_and_passwords_stand_nowhere_in_plain(tmp_path: Path) -> None:
    canary = "canary-9f2c71d0"
    data = tmp_path / "hub"
    with running_hub(data, "--port", "0", "--site", "fra1", "--log-level", "debug") as hub:
        with hub.api() as api:
            body = {"site": "fra1", "kind": "bmc", "value": canary}
            with pytest.raises(ApiError, match="no node"):
                api.put_json("/secrets/bmc-1", body)
            text = api.post("/tokens", {"site": "fra1"})["item"]["token"]
            assert text not in json.dumps(api.get("/tokens"))
            with pytest.raises(ApiError, match="wrong"):
                api.post("/session", {"account": "admin", "password": canary})
        password = hub.password
        connection = http.client.HTTPSConnection(
            "127.0.0.1", hub.port, context=ssl._create_unverified_context(), timeout=10
        )
        body = json.dumps({"account": "admin", "password": password})
        connection.request("POST", "/api/v1/session", body)
        answer = connection.getresponse()
        assert answer.status == 201
        session = (answer.getheader("Set-Cookie") or "").split("=", 1)[1].split(";")[0]
        connection.close()
        api_token = (data / "api-token").read_text().strip()
        assert hub.stop() == 0
        said = hub.output.read_bytes()
    for secret in (canary, password, text, session, api_token):
        assert secret.encode() not in said
        holders = [
            path.name for path, content in everything_in(data) if secret.encode() in content
        ]
        assert holders in ([], ["admin-password"], ["api-token"]), (secret, holders)


def test_the_whole_hub_stays_under_its_memory_limit(tmp_path: Path) -> None:
    content = b"x" * (24 << 20)
    with running_hub(tmp_path / "hub", "--port", "0", "--site", "fra1") as hub:
        with hub.api() as api:
            api.post("/assets", {"name": "img", "url": None, "want": ["fra1"]})
            pieces = (content[at : at + (1 << 20)] for at in range(0, len(content), 1 << 20))
            api.put("/assets/img/content", pieces, len(content))
            for _ in range(50):
                items(api.get("/nodes"))
        with hub.api(hub.remote()) as api, pytest.raises(ApiError):
            api.post("/session", {"account": "admin", "password": "not the password"})
        assert hub.rss_mib() < RSS_MIB_MAX
