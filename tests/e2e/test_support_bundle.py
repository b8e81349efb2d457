"""A support bundle of a live fleet: what support needs is in it, and no secret at all."""

import json
import tarfile
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, one_sentence, run

CANARY = "canary-55d1-never-in-clear"
MEMBERS = (
    *(f"1-hub/{name}" for name in ("status.json", "jobs.json", "tokens.json", "files.txt")),
    *(
        f"2-node-two/{name}"
        for name in ("status.json", "servers.json", "doctor.json", "ports.json")
    ),
    "2-node-two/database-state.db.txt",
    "machine.json",
)


def texts_of(path: Path) -> dict[str, str]:
    """Return the members of a bundle without the folder's name."""
    with tarfile.open(path) as archive:
        return {
            entry.name.partition("/")[2]: _content(archive, entry)
            for entry in archive.getmembers()
        }


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> str:
    file = archive.extractfile(entry)
    assert file is not None, entry.name
    return file.read().decode()


@pytest.mark.slow
def test_a_bundle_holds_what_support_needs_and_no_secret(site: Fleet, tmp_path: Path) -> None:
    password, token = site.bmc_login()["password"], site.hub / "api-token"
    made = run("token", "create", "--site", "one", "--data", site.hub).out.strip()
    admin = (site.hub / "admin-password").read_text().strip()
    config, log = tmp_path / "node.toml", tmp_path / "extra.log"
    config.write_text(f'[x]\npassword = "{CANARY}"\n')
    log.write_text(
        f'{{"msg": "x", "url": "http://10.0.0.1/boot/v1/script?mac=1&cap={CANARY}"}}\n'
        f"somebody pasted {token.read_text().strip()} and {admin} and {made}\n"
    )
    target = tmp_path / "b.tar.gz"
    said = run("support-bundle", target, "--data", site.hub, "--data", site.two,
               "--config", config, "--log", log, "--json")  # fmt: skip
    assert said.code == 0, said.err
    assert target.stat().st_mode & 0o777 == 0o600
    texts = texts_of(target)
    missing = [name for name in MEMBERS if name not in texts]
    assert not missing, json.loads(texts["manifest.json"])["missing"]
    whole = "\n".join(texts.values())
    keys = [path.read_bytes() for data in (site.hub, site.two)
            for path in (data / "keys").rglob("*") if path.is_file()]  # fmt: skip
    assert keys
    for secret in (CANARY, password, admin, token.read_text().strip(), made, made[10:-10]):
        assert secret not in whole
    for key in keys:
        assert not key.strip() or key.strip().hex() not in whole
    manifest = json.loads(texts["manifest.json"])
    assert manifest["secrets_taken_out"] >= 5
    assert json.loads(texts["2-node-two/status.json"])["item"]["site"] == "two"
    assert "quick_check ok" in texts["2-node-two/database-state.db.txt"]
    assert "somebody pasted [redacted]" in texts["log-1-extra.log"]


def test_a_bundle_comes_also_when_the_daemon_is_down(site: Fleet, tmp_path: Path) -> None:
    dead = tmp_path / "dead"
    (dead / "run").mkdir(parents=True)
    (dead / "state.db").write_bytes(b"no database at all" * 100)
    said = run("support-bundle", tmp_path / "b.tar.gz", "--data", dead)
    assert said.code == 0, said.err
    missing = json.loads(texts_of(tmp_path / "b.tar.gz")["manifest.json"])["missing"]
    assert missing["1-dead/api"] == "no daemon runs on this folder"
    assert "not a database" in missing["1-dead/database-state.db.txt"]


def test_a_bundle_is_never_written_over_another_file(tmp_path: Path) -> None:
    (tmp_path / "b.tar.gz").write_text("mine")
    said = run("support-bundle", tmp_path / "b.tar.gz", "--data", tmp_path)
    assert (said.code, "exists" in one_sentence(said)) == (7, True)
    assert (tmp_path / "b.tar.gz").read_text() == "mine"
    assert run("support-bundle", tmp_path / "c.tar.gz", "--data", tmp_path / "none").code == 4
