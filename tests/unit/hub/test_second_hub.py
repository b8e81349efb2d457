"""A hub that joined: what it may do before and after the root names its keys."""

from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from click.testing import CliRunner

from hub.errors import BadRequest, Conflict
from hub.trust_desk import TrustDesk
from mesh.errors import Refused
from mesh.hub_keys import load_or_make_hub_keys, make_joined_keys
from mesh.proto.role_keys import sign_document, with_keys
from mesh.proto.trust import open_trust_document
from rackmesh import cli
from tests.support.hub_bench import founded, second_hub


def next_document(first: TrustDesk, second: TrustDesk) -> str:
    fp = first.keys.root_fp
    trust = open_trust_document(b64decode(first.describe()["document"]), fp)
    keys = second.keys.role_keys(second.identity.node_id)
    return b64encode(sign_document(first.keys.root(), with_keys(trust, keys))).decode()


async def test_a_hub_that_joined_only_reads_until_the_root_names_its_keys(
    tmp_path: Path,
) -> None:
    first = founded(tmp_path / "a")
    second = await second_hub(first, tmp_path / "b")
    own = second.identity.node_id
    assert first.read_only() is None
    assert own in str(second.read_only())
    assert [hub["id"] for hub in first.waiting()] == [own]
    assert second.waiting() == [], "of itself it says so in read_only"
    shown = await first.replace(next_document(first, second))
    assert (shown["version"], second.read_only(), first.waiting()) == (2, None, [])
    (found,) = [hub for hub in first.hubs() if hub["id"] == own]
    assert (found["state"], found["region"]) == ("named", "eu")
    assert {"region": "eu", "epoch": 1, "keys": [second.keys.orders.public.hex()]} in shown[
        "regions"
    ]


async def test_a_document_that_is_not_the_next_one_is_refused(tmp_path: Path) -> None:
    first = founded(tmp_path / "a")
    second = await second_hub(first, tmp_path / "b")
    document = next_document(first, second)
    await first.replace(document)
    with pytest.raises(Conflict, match="do it again"):
        await first.replace(document)
    other = founded(tmp_path / "other").describe()["document"]
    for wrong in (other, "AAAA", "no base64!", b64encode(bytes(70_000)).decode()):
        with pytest.raises(BadRequest, match="no trust document of this organisation"):
            await first.replace(wrong)
    assert first.describe()["version"] == 2


async def test_nobody_says_another_hubs_keys(tmp_path: Path) -> None:
    first = founded(tmp_path / "a")
    second = await second_hub(first, tmp_path / "b")
    third = await second_hub(first, tmp_path / "c")
    theirs = next(hub["record"] for hub in first.hubs() if hub["id"] == third.identity.node_id)
    assert theirs is not None

    def lie(tx: object) -> None:
        body = {"signed": b64decode(theirs)}
        tx.put("hubs", "hub_keys", second.identity.node_id, body)  # type: ignore[attr-defined]

    await second.store.write(lie)
    (found,) = [hub for hub in first.hubs() if hub["id"] == second.identity.node_id]
    assert (found["state"], found["keys"], found["record"]) == ("silent", [], None)


async def test_own_keys_are_written_once(tmp_path: Path) -> None:
    first = founded(tmp_path / "a")
    second = await second_hub(first, tmp_path / "b")
    store = second.store
    (row,) = store.authored("hubs", "hub_keys")
    await store.write(second.write_own)
    assert store.authored("hubs", "hub_keys") == [row]


def test_a_joined_ring_has_no_root_and_belongs_to_one_organisation(tmp_path: Path) -> None:
    first = load_or_make_hub_keys(tmp_path / "a", "main")
    document = first.trust_document
    joined = make_joined_keys(tmp_path / "b", "eu", first.root_fp, document)
    again = make_joined_keys(tmp_path / "b", "eu", first.root_fp, document)
    assert (joined.founded, joined.root_state, joined.region) == (False, "offline", "eu")
    assert joined.membership.public == again.membership.public
    assert joined.membership.public != first.membership.public
    assert load_or_make_hub_keys(tmp_path / "b", "other").region == "eu"
    with pytest.raises(Refused, match="region eu, not us"):
        make_joined_keys(tmp_path / "b", "us", first.root_fp, document)
    with pytest.raises(Refused, match="of organisation"):
        make_joined_keys(tmp_path / "a", "main", bytes(20), document)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("admit", "second"), 2, "all 32 characters"),
        (("admit", "a" * 32, "--root", "nowhere"), 4, "there is no root key in nowhere"),
        (("admit", "a" * 32), 4, "the root key is not in"),
        (("void", "abcd"), 4, "the root key is not in"),
    ],
)
def test_a_wrong_word_about_the_root_is_one_sentence(
    tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    said = CliRunner().invoke(cli, ["hub", "root", *words, "--data", str(tmp_path)])
    assert said.exit_code == code, said.output
    assert says in said.output
