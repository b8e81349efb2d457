"""Joining with every kind of bad token: one sentence on the node's own terminal, a code."""

import json
from collections.abc import Generator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from demo_processes import wait_for

from mesh.host.clock import SystemClock
from mesh.proto.token import Token, make_token, parse_token
from tests.support.fleet import Fleet, fleet, one_sentence, run

DENIED, UNREACHABLE = 6, 5
now_ms = SystemClock().now_ms


@pytest.fixture(scope="module")
def hubs(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """A hub, and nothing else."""
    with fleet(tmp_path_factory.mktemp("join"), image_mib=1) as made:
        made.start_hub()
        yield made


def token(hubs: Fleet, site: str = "one", ttl_s: int = 3600) -> str:
    with hubs.api(hubs.hub) as client:
        answer = client.post("/tokens", {"site": site, "roles": ["node"], "ttl_s": ttl_s})
    return str(answer["item"]["token"])


def rewritten(text: str, **changes: object) -> str:
    """The same token saying something else, as another hub would have made it."""
    fields = asdict(replace(parse_token(text), **changes))  # type: ignore[arg-type]
    return make_token(token_id=fields.pop("id"), **fields)


def join(data: Path, text: str) -> tuple[int, str]:
    said = run("node", "join", "--token-file", "-", "--data", data, "--name", "n", stdin=text)
    assert "rm1.A" not in said.out + said.err, "a token stands on the terminal"
    return said.code, one_sentence(said) if said.code else said.out


def joined(data: Path) -> bool:
    return (data / "node.json").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the join token is empty"),
        ("hello, let me in", "this is not a join token"),
        ("rm1.", "cut short"),
        ("rm1.!!!!", "mistyped"),
    ],
    ids=["nothing", "prose", "prefix", "noise"],
)
def test_garbage_in_place_of_a_token_is_told_apart(
    tmp_path: Path, text: str, told: str
) -> None:
    code, sentence = join(tmp_path / "node", text)
    assert (code, told in sentence) == (DENIED, True), sentence
    assert not joined(tmp_path / "node")


@pytest.mark.parametrize("cut", [1, 3, 40])
def test_a_truncated_token_says_that_it_is_cut_short(
    hubs: Fleet, tmp_path: Path, cut: int
) -> None:
    text = token(hubs)
    code, sentence = join(tmp_path / "node", text[:-cut])
    assert (code, "cut short" in sentence) == (DENIED, True), sentence
    code, said = join(tmp_path / "node", text)
    assert code == 0, f"the whole token is still good: {said}"


def test_a_mistyped_token_says_so(hubs: Fleet, tmp_path: Path) -> None:
    text = token(hubs)
    wrong = text[:30] + ("A" if text[30] != "A" else "B") + text[31:]
    code, sentence = join(tmp_path / "node", wrong)
    assert (code, "mistyped" in sentence) == (DENIED, True), sentence


def test_a_used_token_admits_its_identity_again_and_nobody_else(
    hubs: Fleet, tmp_path: Path
) -> None:
    text = token(hubs)
    assert join(tmp_path / "first", text)[0] == 0
    node = json.loads((tmp_path / "first" / "node.json").read_text())
    assert join(tmp_path / "first", text)[0] == 0, "the same identity again is harmless"
    assert json.loads((tmp_path / "first" / "node.json").read_text()) == node
    code, sentence = join(tmp_path / "second", text)
    assert (code, "used" in sentence) == (DENIED, True), sentence
    assert not joined(tmp_path / "second")
    assert '"reason": "used"' in hubs.log("hub"), "the hub raises an alarm"


def test_an_expired_token_is_refused(hubs: Fleet, tmp_path: Path) -> None:
    text = token(hubs, ttl_s=1)
    name = parse_token(text).id

    def expired() -> bool:
        items = json.loads(run("token", "list", "--json", "--data", hubs.hub).out)["items"]
        return any(t["id"] == name and t["state"] == "expired" for t in items)

    wait_for("the token expired", expired, 10, hubs.processes)
    code, sentence = join(tmp_path / "node", text)
    assert (code, "expired" in sentence) == (DENIED, True), sentence


def test_an_expired_token_is_refused_by_the_hub_too(hubs: Fleet, tmp_path: Path) -> None:
    text = token(hubs, ttl_s=1)
    expires_ms = parse_token(text).expires_ms
    wait_for("it expired", lambda: now_ms() > expires_ms, 10, hubs.processes)
    code, sentence = join(tmp_path / "node", rewritten(text, expires_ms=expires_ms * 2))
    assert (code, "expired" in sentence) == (DENIED, True), sentence


def test_a_revoked_token_is_refused(hubs: Fleet, tmp_path: Path) -> None:
    text = token(hubs)
    assert run("token", "revoke", parse_token(text).id, "--data", hubs.hub).code == 0
    code, sentence = join(tmp_path / "node", text)
    assert (code, "revoked" in sentence) == (DENIED, True), sentence
    assert not joined(tmp_path / "node")


def test_a_token_of_another_organisation_is_refused_before_anything_is_sent(
    hubs: Fleet, tmp_path: Path
) -> None:
    with fleet(tmp_path / "other", image_mib=1) as other:
        other.start_hub()
        foreign = token(other)
        here = parse_token(token(hubs)).urls
        code, sentence = join(tmp_path / "node", rewritten(foreign, urls=here))
        assert (code, "another organisation" in sentence) == (DENIED, True), sentence
        assert not joined(tmp_path / "node")
        assert join(tmp_path / "node", foreign)[0] == 0, "at its own hub it is good"


def test_a_hub_that_is_not_in_the_token_is_refused(hubs: Fleet, tmp_path: Path) -> None:
    text = token(hubs)
    stranger = "a" * len(parse_token(text).hub_ids[0])
    code, sentence = join(tmp_path / "node", rewritten(text, hub_ids=(stranger,)))
    assert (code, "not one that the join token names" in sentence) == (DENIED, True), sentence
    assert not joined(tmp_path / "node")
    assert join(tmp_path / "node", text)[0] == 0, "the token was not used up"


def test_a_wrong_secret_in_a_token_is_refused(hubs: Fleet, tmp_path: Path) -> None:
    text = token(hubs)
    code, sentence = join(tmp_path / "node", rewritten(text, secret=bytes(16)))
    assert code == DENIED, sentence
    assert join(tmp_path / "node", text)[0] == 0, "the token was not used up"


def test_a_hub_that_is_away_is_named(hubs: Fleet, tmp_path: Path) -> None:
    text = token(hubs)
    url = "https://127.0.0.1:1"
    code, sentence = join(tmp_path / "node", rewritten(text, urls=(url,)))
    assert (code, "127.0.0.1:1 " in sentence) == (UNREACHABLE, True), sentence
    both = (url, *parse_token(text).urls)
    code, said = join(tmp_path / "node", rewritten(text, urls=both))
    assert code == 0, f"the next address of the token is tried: {said}"


def test_a_folder_of_one_site_does_not_join_another(hubs: Fleet, tmp_path: Path) -> None:
    assert join(tmp_path / "node", token(hubs, "one"))[0] == 0
    code, sentence = join(tmp_path / "node", token(hubs, "two"))
    assert code == DENIED
    assert "site one" in sentence
    assert "two" in sentence


def test_wrong_words_are_told_with_what_would_be_right(hubs: Fleet, tmp_path: Path) -> None:
    data = tmp_path / "node"
    neither = run("node", "join", "--data", data)
    assert (neither.code, "--token-file" in one_sentence(neither)) == (2, True)
    absent = run("node", "join", "--token-file", tmp_path / "absent", "--data", data)
    assert (absent.code, "absent" in one_sentence(absent)) == (2, True)
    before = run("node", "run", "--data", data)
    assert (before.code, "node join" in one_sentence(before)) == (UNREACHABLE, True)
    site = run("token", "create", "--site", "Not A Site", "--data", hubs.hub)
    assert (site.code, "Not A Site" in one_sentence(site)) == (2, True)
    role = run("token", "create", "--site", "one", "--role", "king", "--data", hubs.hub)
    assert (role.code, "king" in one_sentence(role)) == (2, True)


def test_no_log_holds_a_traceback_or_a_token(hubs: Fleet) -> None:
    hubs.no_traceback()
    assert "rm1." not in hubs.log("hub")


def test_the_token_reads_back_as_it_was_made(hubs: Fleet) -> None:
    text = token(hubs)
    assert isinstance(parse_token(text), Token)
    assert rewritten(text) == text
