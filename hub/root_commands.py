"""``rackmesh hub list``, ``hub root admit`` and ``void``: the root says whose keys count.

Rule: the root key is read and used here, in the command's own process, and never reaches a
daemon; a hub is asked for the present document and for the other hub's keys, and both are
checked by their signatures before anything is signed. So the hub that is asked may be any one,
also over ``--hub``.
"""

import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from hub.commands import folder_of
from mesh.cli.context import Where, options, print_json, read_secret_file
from mesh.cli.errors import CONFLICT, NOT_FOUND, Failure
from mesh.cli.nouns import every, listing
from mesh.cli.tables import print_table

KEY_SHOWN = 16
KEY_CHARS_MIN = 8
"""Least of a key's hexadecimal digits that name it."""


@click.command("list")
@listing
@options
def hub_list(where: Where, as_json: bool, **asked: Any) -> None:
    """List the hubs, their regions, and whether the root has named their keys."""
    answer = every(where, "/hubs", as_json, asked)
    rows = [
        (hub["id"], hub["name"], hub["region"] or "-", hub["state"],
         " ".join(key[:KEY_SHOWN] for key in hub["keys"]) or "-", ", ".join(hub["urls"]) or "-")
        for hub in answer["items"]
    ]  # fmt: skip
    if not as_json:
        columns = ("HUB", "NAME", "REGION", "KEYS ARE", "KEYS", "ADDRESS")
        print_table(columns, rows, "no hubs")


def signing(function: Any) -> Any:
    """Give a command what the root key needs: --root, --passphrase-file."""
    decorators = [
        click.option(
            "--root", "root_file", type=click.Path(path_type=Path),
            help="File of the exported root key; default: the root in the hub's data folder.",
        ),
        click.option(
            "--root-data", type=click.Path(path_type=Path),
            help="Data folder with the root key, when another hub is asked with --hub.",
        ),
        click.option(
            "--passphrase-file", type=click.Path(path_type=Path, allow_dash=True),
            help="File with the root key's passphrase; - is standard input. Default: ask.",
        ),
    ]  # fmt: skip
    for decorate in decorators:
        function = decorate(function)
    return function


@click.command("admit")
@click.argument("hub_id", metavar="HUB")
@signing
@options
def root_admit(
    where: Where, as_json: bool, hub_id: str, root_file: Path | None, root_data: Path | None,
    passphrase_file: Path | None,
) -> None:  # fmt: skip
    """Let the root name the keys of HUB, the whole id that `hub join` printed there.

    From then on that hub admits members, gives orders for its region and names assets. The id
    is the fingerprint of the hub's own key: take it from that machine, not from another hub.
    """
    from mesh.errors import CodecError
    from mesh.proto.ids import NODE_ID_PATTERN
    from mesh.proto.role_keys import open_role_keys_record, with_keys

    if not NODE_ID_PATTERN.match(hub_id):
        raise Failure(
            f"{hub_id!r} is no id of a hub: give all 32 characters that hub join printed there",
            2,
        )

    def amend(asked: Any, trust: Any, _root: Any) -> Any:
        hub = next((one for one in asked.hubs if one["id"] == hub_id), None)
        if hub is None:
            raise Failure(f"no hub {hub_id} has joined, or this hub has not met it", NOT_FOUND)
        if hub["state"] not in ("waits", "named", "silent"):
            raise Failure(f"hub {hub_id} is {hub['state']}", CONFLICT)
        if hub["record"] is None:
            raise Failure(
                f"hub {hub_id} has said no keys yet: start it (rackmesh hub up) and try again",
                CONFLICT,
            )
        try:
            keys = open_role_keys_record(b64decode(hub["record"]), asked.root_fp)
        except (CodecError, ValueError) as exc:
            raise Failure(f"what is said to be of hub {hub_id} is not: {exc}") from exc
        if keys.hub_id != hub_id:
            raise Failure(f"what is said to be of hub {hub_id} is signed by {keys.hub_id}")
        return with_keys(trust, keys), []

    key = _root_source(where, root_file, root_data)
    answer = _sign(where, amend, key, passphrase_file)
    said = f"trust document {answer['item']['version']} names the keys of hub {hub_id}"
    print_json(answer) if as_json else click.echo(said)


@click.command("void")
@click.argument("what", metavar="HUB|KEY")
@click.option("--leaked", is_flag=True, help="Somebody else may have signed with it, too.")
@click.option(
    "--except", "but", multiple=True, metavar="NODE",
    help="With --leaked: a node that it has not admitted, or not so; may be repeated.",
)  # fmt: skip
@signing
@options
def root_void(
    where: Where, as_json: bool, what: str, leaked: bool, but: tuple[str, ...],
    root_file: Path | None, root_data: Path | None, passphrase_file: Path | None,
) -> None:  # fmt: skip
    """Let the root take role keys back: all of a HUB (its whole id), or one KEY (hexadecimal).

    Orders, names and admissions that such a key signs afterwards count nowhere. The hub itself
    stays a member that reads. Members that it has admitted stay; with --leaked those alone that
    the hub which is asked knows, whatever date somebody puts on others.
    """
    from mesh.proto.role_keys import without_keys
    from mesh.proto.void import make_kept_records, with_void

    if but and not leaked:
        raise Failure("--except goes with --leaked", 2)

    def amend(asked: Any, trust: Any, root: Any) -> Any:
        keys = _meant(asked, what)
        made, lists = without_keys(trust, keys), []
        for key in [key for key in keys if leaked and key in trust.membership]:
            lists = make_kept_records(root, asked.root_fp, asked.standing(key, but))
            made = replace(
                with_void(made, key, "", lists, asked.root_fp), version=trust.version + 1
            )
        return made, lists

    key = _root_source(where, root_file, root_data)
    answer = _sign(where, amend, key, passphrase_file)
    said = f"trust document {answer['item']['version']} names {what} no more"
    print_json(answer) if as_json else click.echo(said)


@click.command("delegate")
@click.argument("node", metavar="NODE")
@click.option("--take-back", is_flag=True, help="It shall not speak for its site any more.")
@click.option(
    "--leaked", is_flag=True, help="With --take-back: somebody else may have signed as it."
)
@signing
@options
def root_delegate(
    where: Where, as_json: bool, node: str, take_back: bool, leaked: bool,
    root_file: Path | None, root_data: Path | None, passphrase_file: Path | None,
) -> None:  # fmt: skip
    """Let NODE (its whole id), a site-operator, revoke nodes of its own site without a hub."""
    from mesh.proto.void import make_kept_records, with_retired, with_site_key, with_void

    if leaked and not take_back:
        raise Failure("--leaked goes with --take-back", 2)

    def amend(asked: Any, trust: Any, root: Any) -> Any:
        if not take_back:
            member = asked.operator(node)
            return with_site_key(trust, member.site, member.identity_public), []
        member = asked.site_node(node)
        if member.identity_public not in trust.site_keys.get(member.site, ()):
            raise Failure(f"node {node} does not speak for its site", CONFLICT)
        if not leaked:
            return with_retired(trust, [member.identity_public]), []
        key = member.identity_public
        lists = make_kept_records(root, asked.root_fp, asked.standing(key, ()))
        return with_void(trust, key, member.site, lists, asked.root_fp), lists

    key = _root_source(where, root_file, root_data)
    answer = _sign(where, amend, key, passphrase_file)
    does = "speaks for its site no more" if take_back else "speaks for its site"
    said = f"by trust document {answer['item']['version']} node {node} {does}"
    print_json(answer) if as_json else click.echo(said)


def _meant(asked: Any, what: str) -> list[bytes]:
    """Return the keys that are meant by a hub's id or by the beginning of one key."""
    item = asked.item
    for hub in asked.hubs:
        if hub["id"] == what:
            if not hub["keys"]:
                raise Failure(f"hub {what} has said no keys", NOT_FOUND)
            return [bytes.fromhex(key) for key in hub["keys"]]
    named = {*item["membership"], *item["assets"]}
    named |= {key for region in item["regions"] for key in region["keys"]}
    text = what.lower()
    found = [key for key in named if len(text) >= KEY_CHARS_MIN and key.startswith(text)]
    if len(found) != 1:
        raise Failure(
            f"{what[:80]!r} is neither a hub nor one named key (its first {KEY_CHARS_MIN}"
            " digits or more); see rackmesh hub list",
            NOT_FOUND,
        )
    return [bytes.fromhex(found[0])]


def _root_source(where: Where, root_file: Path | None, root_data: Path | None) -> Path:
    """Return the file of the root key; Failure with what to do when there is none."""
    from mesh.hub_keys import ROOT_FILE

    if root_file is not None:
        if not root_file.exists():
            raise Failure(f"there is no root key in {root_file}", NOT_FOUND)
        return root_file
    path = folder_of(root_data or where.data) / "keys" / ROOT_FILE
    if not path.exists():
        raise Failure(
            f"the root key is not in {path.parent}: run this where it is, or give the exported"
            " one with --root FILE",
            NOT_FOUND,
        )
    return path


def _sign(
    where: Where,
    amend: Callable[[Any, Any, Any], Any],
    root_file: Path,
    passphrase_file: Path | None,
) -> Any:
    """Have the root sign what ``amend`` makes of the present document, and hand it over.

    ``amend(asked, document, root)`` returns the next document and the lists that it names.
    """
    from hub.root_asked import Asked
    from mesh.errors import MeshError
    from mesh.hub_keys import read_root
    from mesh.proto.ids import root_fingerprint
    from mesh.proto.role_keys import sign_document
    from mesh.proto.trust import open_trust_document

    with where.client() as client:
        item = client.get("/trust")["item"]
        hubs = client.every("/hubs")["items"]
        try:
            root = read_root(root_file, _passphrase(root_file, passphrase_file))
            present = b64decode(item["document"])
            own = root_fingerprint(root.public)
            if own.hex() != item["root_fingerprint"]:
                raise Failure(
                    f"{root_file} is the root key of organisation {own.hex()[:8]}; the hub"
                    f" belongs to {item['root_fingerprint'][:8]}"
                )
            asked = Asked(client, own, item, hubs)
            made, lists = amend(asked, open_trust_document(present, own), root)
            body = {
                "document": b64encode(sign_document(root, made)).decode(),
                "lists": [b64encode(one).decode() for one in lists],
            }
        except (MeshError, ValueError) as exc:
            raise Failure(str(exc)) from exc
        return client.put_json("/trust", body)


def _passphrase(root_file: Path, file: Path | None) -> str | None:
    from mesh.hub_keys import root_is_wrapped

    if file is not None:
        return read_secret_file(file) or None
    if not root_is_wrapped(root_file):
        return None
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Failure("the root key is wrapped: give --passphrase-file FILE (- is stdin)", 2)
    return str(click.prompt("Passphrase of the root key", hide_input=True, err=True))
