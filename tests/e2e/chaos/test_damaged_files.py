"""Files whose bytes have rotted while their process was stopped: nothing wrong is ever served.

Each file has its rule: what peers hold is asked for again, what can be made again is put aside,
what only a person may decide is refused with the command that mends it.
"""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from demo_processes import wait_for

from mesh.proto import tables
from mesh.proto.sets import SetId
from mesh.register_store import FRAME_HEAD, HEAD_BYTES
from tests.e2e.chaos.storm import DEAD_SOCKETS
from tests.support.fleet import IMAGE, Fleet, fleet, one_sentence, run

pytestmark = [pytest.mark.slow, DEAD_SOCKETS]
FAILED = 1


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """Two sites, a rack of one, whose server has been deployed."""
    with fleet(tmp_path_factory.mktemp("rot"), servers=1, image_mib=6) as made:
        made.disk_mib = 16
        made.start_sites()
        made.register_image()
        made.accept(1)
        made.succeeded(made.deploy_order("srv1"))
        yield made


@pytest.fixture(autouse=True)
def facts(site: Fleet) -> Generator[dict[str, Any]]:
    """What every daemon must say before and after, whatever was damaged in between."""
    site.heal()
    before = told(site)
    yield before
    site.heal()
    wait_for("all is as before", lambda: told(site) == before, 45, site.processes)
    site.no_traceback()


def told(site: Fleet) -> dict[str, Any]:
    """Return what hub and node say about the server, its jobs and the image."""
    found: dict[str, Any] = {}
    for data in (site.hub, site.two):
        server = site.server("srv1", data) or {}
        found[data.name] = [server.get(key) for key in ("id", "name", "state", "image", "mac")]
        jobs = site.get(data, "/jobs") or []
        found[f"{data.name} jobs"] = sorted(
            (job["id"], job["kind"], job["state"], job["author"]) for job in jobs
        )
        asset = site.get(data, f"/assets/{IMAGE}") or {}
        found[f"{data.name} image"] = (asset.get("asset"), asset.get("sha256"))
    return found


def flip(path: Path, content: bytes, count: int = 1) -> int:
    """Flip a bit in every place (up to ``count``) where a file holds some bytes."""
    data, at, done = bytearray(path.read_bytes()), -1, 0
    while done < count and (at := data.find(content, at + 1)) >= 0:
        data[at + len(content) // 2] ^= 0x01
        done += 1
    path.write_bytes(data)
    return done


def break_pages(path: Path) -> None:
    """Overwrite the heads of all pages but the first: no b-tree is whole any more."""
    data = bytearray(path.read_bytes())
    for page in range(4096, len(data), 4096):
        data[page : page + 8] = b"\xff" * 8
    path.write_bytes(data)


def refused(site: Fleet, name: str, words: list[str | Path]) -> str:
    """Start a process that must not start; return its sentence."""
    said = run(*words[1:], timeout_s=60)
    assert said.code == FAILED, f"{name}: {said.code} {said.err}"
    return one_sentence(said)


def carry_out(sentence: str) -> None:
    """Do what a sentence says: the command in its brackets."""
    command = sentence.partition("(mv ")[2].partition(")")[0].split()
    assert len(command) == 2, sentence
    Path(command[0]).rename(command[1])


def stopped(site: Fleet, name: str) -> None:
    """Stop a process so that all it holds stands in its files."""
    site.processes.stop(name)


def start_again(site: Fleet, name: str) -> None:
    """Start a process; there is no wrong answer in what it says from its first word on."""
    site.start_hub() if name == "hub" else site.run_node(site.folder / name)


def never_wrong(site: Fleet, data: Path, before: dict[str, Any]) -> None:
    """What is shown is what was true, or nothing yet."""
    item = site.server("srv1", data)
    if item is not None:
        assert [item["name"], item["state"]] == ["srv1", "active"]
        assert item["id"] == before[data.name][0]


@pytest.mark.parametrize("name", ["hub", "node-two"])
@pytest.mark.parametrize("how", ["pages", "own row"])
def test_a_damaged_state_is_refused_with_the_command_that_mends_it(
    site: Fleet, facts: dict[str, Any], name: str, how: str
) -> None:
    data = site.folder / name
    node = site.status(data)["node"]
    stopped(site, name)
    if how == "pages":
        break_pages(data / "state.db")
    else:
        flip_row(data, node, own=True)
    words = site.hub_words() if name == "hub" else site.node_words(data)
    sentence = refused(site, name, words)
    assert f"{data / 'state.db'} is damaged" in sentence
    assert refused(site, name, words) == sentence, "it is left as it is"
    carry_out(sentence)
    start_again(site, name)
    never_wrong(site, data, facts)
    if name == "hub":  # it says what it got back, until somebody has read it
        words = ["hub", "restore-report", "--dismiss", "--data", site.hub]
        wait_for("the report", lambda: run(*words).code == 0, 45, site.processes)


def flip_row(data: Path, author: str, *, own: bool) -> None:
    """Change one byte of a row's body, of our own or of somebody else's set."""
    import sqlite3

    scope = tables.site_scope("two")
    db = sqlite3.connect(data / "state.db")
    try:
        mark = "=" if own else "<>"
        found = db.execute(
            "SELECT r.body FROM mesh_row r JOIN mesh_set s ON s.id = r.set_id"
            f" WHERE s.scope = ? AND s.author {mark} ? AND length(r.body) BETWEEN 40 AND 900",
            (scope, SetId(author, scope).author),
        ).fetchone()
    finally:
        db.close()
    assert found is not None, "no such row"
    assert flip(data / "state.db", found[0][:40], count=9) >= 1


@pytest.mark.parametrize("name", ["hub", "node-two"])
def test_rows_of_others_that_are_damaged_are_asked_for_again(
    site: Fleet, facts: dict[str, Any], name: str
) -> None:
    data = site.folder / name
    node = site.status(data)["node"]
    stopped(site, name)
    flip_row(data, node, own=False)
    start_again(site, name)
    never_wrong(site, data, facts)
    assert '"store damaged"' in site.log(name)


def test_damaged_sessions_are_put_aside_and_people_sign_in_again(site: Fleet) -> None:
    stopped(site, "hub")
    break_pages(site.hub / "hub.db")
    start_again(site, "hub")
    assert (site.hub / "hub.db.damaged").exists()


@pytest.mark.parametrize("damage", [break_pages, lambda path: flip(path, b'"active"', 9)])
def test_damaged_reports_are_put_aside_and_made_anew(
    site: Fleet, facts: dict[str, Any], damage: Callable[[Path], object]
) -> None:
    stopped(site, "hub")
    damage(site.hub / "report.db")
    start_again(site, "hub")
    never_wrong(site, site.hub, facts)
    assert (site.hub / "report.db.damaged").exists()


@pytest.mark.parametrize("name", ["hub", "node-two"])
def test_a_damaged_ledger_of_the_cache_is_made_anew_and_images_stay(
    site: Fleet, name: str
) -> None:
    cache = site.folder / name / "cache"
    stopped(site, name)
    break_pages(cache / "cache.db")
    start_again(site, name)
    assert (cache / "cache.db.damaged").exists()


def records(path: Path) -> list[tuple[int, int]]:
    """Where each record of a register stands."""
    data, at, found = path.read_bytes(), HEAD_BYTES, []
    while at < len(data):
        size = FRAME_HEAD.unpack_from(data, at)[0] + FRAME_HEAD.size
        found.append((at, size))
        at += size
    return found


@pytest.mark.parametrize("name", ["hub", "node-two"])
def test_a_damaged_record_of_the_register_comes_back_from_peers(site: Fleet, name: str) -> None:
    data = site.folder / name
    path = register_of(data)
    stopped(site, name)
    at, size = records(path)[-1]
    content = bytearray(path.read_bytes())
    content[at + size // 2] ^= 0x10
    path.write_bytes(content)
    start_again(site, name)
    assert '"register damaged"' in site.log(name)
    for node in (site.one, site.two):
        site.wait_linked(node)


def test_a_register_without_trust_is_refused_and_another_members_file_mends_it(
    site: Fleet,
) -> None:
    path = register_of(site.two)
    stopped(site, "node-two")
    content = bytearray(path.read_bytes())
    content[HEAD_BYTES + 40] ^= 0x10
    path.write_bytes(content)
    sentence = refused(site, "node-two", site.node_words(site.two))
    assert str(path) in sentence
    assert "another member" in sentence
    path.write_bytes(register_of(site.one).read_bytes())
    start_again(site, "node-two")
    site.wait_linked(site.two)


def register_of(data: Path) -> Path:
    """Where a daemon keeps its register."""
    found = [path for path in data.rglob("register") if path.is_file()]
    assert len(found) == 1, found
    return found[0]
