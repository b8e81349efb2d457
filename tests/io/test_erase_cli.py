"""The verbs about erased disks: a record leaves the hub in a file and is checked without it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rackmesh import cli
from tests.io.test_cli_cover import desk
from tests.support.alike import ERASED, ORG
from tests.support.trust import Org

ROOT = ORG.root_fp.hex()


def alone(*words: str) -> Result:
    """Run a verb that needs nothing but its arguments."""
    return CliRunner().invoke(cli, list(words))


async def test_a_record_is_exported_and_verified_offline(tmp_path: Path) -> None:
    plain, page = tmp_path / "record.json", tmp_path / "record.html"
    async with desk(tmp_path) as at:
        listed = await at.run("erase", "list")
        assert "overwrite" in listed.output
        shown = await at.run("erase", "show", ERASED["id"])
        assert "disk.serial: D1" in shown.output
        assert (await at.run("erase", "export", ERASED["id"], str(plain))).exit_code == 0
        assert (
            await at.run("erase", "export", ERASED["id"], str(page), "--html")
        ).exit_code == 0
        missing = await at.run("erase", "show", "nope")
        assert missing.exit_code == 4
        assert "there is no erase record 'nope'" in missing.output
    for file in (plain, page):
        done = alone("erase", "verify", str(file), "--root", ROOT)
        assert done.exit_code == 0, done.output
        assert "the record holds: disk D1 (M, 1073741824 bytes) of web-1" in done.output
        assert "level clear: proved" in done.output
    told = json.loads(alone("erase", "verify", str(plain), "--root", ROOT, "--json").output)
    assert told["item"]["record"]["seed"] == "ab" * 32
    assert page.read_text().count("<script") == 1


@pytest.mark.parametrize(
    ("change", "root", "code", "says"),
    [
        ({}, Org("other").root_fp.hex(), 1, "is of the root"),
        ({}, "12", 2, "--root is 40 hex digits"),
        ({"record": {}}, ROOT, 1, "is not what was signed"),
        ({"proof": []}, ROOT, 1, "nothing in the file shows"),
    ],
)
async def test_a_file_that_proves_nothing_says_why(
    tmp_path: Path, change: dict[str, Any], root: str, code: int, says: str
) -> None:
    file = tmp_path / "record.json"
    async with desk(tmp_path) as at:
        assert (await at.run("erase", "export", ERASED["id"], str(file))).exit_code == 0
    value = {**json.loads(file.read_text()), **change}
    file.write_text(json.dumps(value, separators=(",", ":")))
    done = alone("erase", "verify", str(file), "--root", root)
    assert (done.exit_code, says in done.output) == (code, True), done.output


async def test_a_policy_is_set_for_a_site_and_for_a_server(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        show = ("cleanup-policy", "show", "--json")
        first = json.loads((await at.run(*show, "--server", "web-1")).output)["item"]
        assert (first["source"], first["level"], first["fallback"]) == ("default", "clear", [])
        held = await at.run("cleanup-policy", "set", "--site", "fra1", "--level", "purge")
        assert "level purge, fallback none: such a server is held" in held.output
        by_site = json.loads((await at.run(*show, "--server", "web-1")).output)["item"]
        assert (by_site["source"], by_site["level"]) == ("site", "purge")
        own = ("cleanup-policy", "set", "--server", "web-1")
        words = ("--fallback", "write-zeroes", "--fallback", "overwrite")
        below = await at.run(*own, *words)
        assert below.output == "level purge, fallback write-zeroes, overwrite\n"
        server = json.loads((await at.run(*show, "--server", "web-1")).output)["item"]
        assert (server["source"], server["level"]) == ("server", "purge")
        assert server["fallback"] == ["write-zeroes", "overwrite"]
        await at.run(*own, "--inherit")
        again = json.loads((await at.run(*show, "--server", "web-1")).output)["item"]
        assert (again["source"], again["fallback"]) == ("site", [])
        for words in (own, ("cleanup-policy", "set", "--level", "purge")):
            assert (await at.run(*words)).exit_code == 2
