"""What a hook may say, and which hooks an order carries."""

from typing import Any

import pytest

from mesh.errors import CodecError
from mesh.proto.hook import (
    HOOKS_MAX,
    KINDS,
    POINTS,
    Hook,
    clean_host_key,
    in_force,
    read_hook,
    read_hooks,
)
from mesh.proto.order import OrderRefused, check_params
from mesh.rest.orders import KnownLists, draft
from mesh.rest.problems import RequestProblem
from tests.support.hook_hosts import new_key

ASSET = "b3:" + "2" * 64
KEY = new_key()[1].strip()
HOOK: dict[str, Any] = {
    "name": "ci", "point": "before-deploy", "kind": "webhook", "url": "https://ci.example/x",
    "secret": "hook-ci",
}  # fmt: skip
SSH: dict[str, Any] = {
    "name": "reg", "point": "after-deploy", "kind": "ssh", "command": "true",
    "secret": "hook-{site}",
}  # fmt: skip
PLAY: dict[str, Any] = {
    "name": "play", "point": "after-deploy", "kind": "ansible", "playbook": "site.yml",
    "connection": "local",
}  # fmt: skip


@pytest.mark.parametrize("body", [HOOK, SSH, PLAY], ids=KINDS)
def test_a_hook_is_read_as_it_was_written(body: dict[str, Any]) -> None:
    hook = read_hook(body)
    assert read_hook(hook.body()) == hook
    assert hook.timeout_s == 600
    assert hook.tries == {"webhook": 5, "ssh": 3, "ansible": 1}[hook.kind]
    assert hook.verb == "server.deploy"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({**HOOK, "url": "http://ci.example/x"}, "url must be an https URL"),
        ({**HOOK, "url": "https://u:p@ci.example/x"}, "must not hold a user name"),
        ({**HOOK, "url": "https://ci.example/\r\nX: y"}, "https URL, not"),
        ({**HOOK, "secret": "bmc1"}, "secret is not the id of a secret for hooks"),
        ({**HOOK, "secret": "hook-{node}"}, "secret is not the id"),
        ({**HOOK, "secret": "hook-" + "x" * 59}, "secret is not the id"),
        ({**HOOK, "secret": None}, "needs url and secret"),
        ({**HOOK, "pin": "zz"}, "pin is not the SHA-256"),
        ({**HOOK, "command": "true"}, "command is for hooks of kind ssh"),
        ({**HOOK, "host_key": KEY}, "host_key is not for hooks of kind webhook"),
        ({**HOOK, "name": "../x"}, "name is not a name"),
        ({**HOOK, "point": "during"}, "point must be one of before-deploy"),
        ({**HOOK, "kind": "smtp"}, "kind must be one of webhook"),
        ({**HOOK, "timeout_s": 0}, "timeout_s is not a number from 1"),
        ({**HOOK, "tries": 21}, "tries is not a number from 1 to 20"),
        ({**HOOK, "on_failure": "ignore"}, "on_failure must be one of fail, continue"),
        ({**SSH, "command": "a\nb"}, "command is not one printable line"),
        ({**SSH, "command": "x" * 2049}, "command is not a text"),
        ({**SSH, "host": "-oProxyCommand=x", "host_key": KEY}, "host is not a host name"),
        ({**SSH, "user": "-x"}, "user is not a user name"),
        ({**SSH, "host": "10.0.0.1"}, "nobody knows the key of 10.0.0.1"),
        ({**SSH, "host": "10.0.0.1", "host_key": "ssh-ed25519 AAAA"}, "host_key is not a pub"),
        ({**SSH, "point": "before-deploy"}, "cannot reach the server before it is deployed"),
        ({**SSH, "point": "after-release"}, "cannot reach the server after it is released"),
        ({**PLAY, "playbook": "../site.yml"}, "playbook is not a file name"),
        ({**PLAY, "asset": "x"}, "needs either playbook or asset"),
        ({**PLAY, "connection": "ssh"}, "ansible needs a key to the server"),
        ([], "a hook is not a map"),
    ],
)  # fmt: skip
def test_what_is_no_hook_is_one_sentence(body: Any, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        read_hook(body)


def test_a_host_key_is_what_its_own_bytes_say() -> None:
    kind, blob = KEY.split()
    assert clean_host_key(f"{kind} {blob} root@web1\n") == KEY
    for wrong in ("", "N/A", kind, f"ssh-rsa {blob}", f"{kind} !!!", f"evil {blob}"):
        assert clean_host_key(wrong) is None


def test_removed_and_broken_rows_are_no_hooks() -> None:
    rows = [
        ("reg", SSH), ("ci", HOOK), ("old", {**HOOK, "name": "old", "removed_ms": 1}),
        ("other", HOOK), ("bad", {"name": "bad"}),
    ]  # fmt: skip
    assert list(in_force(rows)) == ["ci", "reg"]


def known(*hooks: dict[str, Any], **image: Any) -> KnownLists:
    images = {
        "debian": {"name": "debian", "kind": "image", "asset": ASSET},
        "site": {"name": "site", "kind": "file", "asset": ASSET, **image},
    }
    server = {
        "id": "01980000-0000-7000-8000-000000000001", "name": "srv1", "site": "one",
        "state": "available", "cleaned": False, "hold": False, "job": None,
    }  # fmt: skip
    return KnownLists(
        servers=[server], pending=[], jobs=[], images=images,
        hooks=in_force((h["name"], h) for h in hooks),
    )  # fmt: skip


def order(at: KnownLists, kind: str = "server.deploy", **params: Any) -> dict[str, Any]:
    body = {"image": "debian"} if kind == "server.deploy" else {}
    made = draft({"kind": kind, "server": "srv1", "params": {**body, **params}}, at, "")
    check_params(made.kind, made.params)
    return made.params


def test_an_order_carries_the_hooks_of_its_site_whole_in_the_order_of_their_names() -> None:
    elsewhere = {**HOOK, "name": "aa", "site": "two"}
    release = {**HOOK, "name": "bb", "point": "after-release"}
    play = {**PLAY, "name": "zz", "playbook": None, "asset": "site", "site": "one"}
    at = known(SSH, HOOK, elsewhere, release, play)
    hooks = read_hooks(order(at), "server.deploy")
    assert [hook.name for hook in hooks] == ["ci", "reg", "zz"]
    assert hooks[1].secret == "hook-one", "a secret belongs to one site"
    assert hooks[2].asset_id == ASSET
    assert "hooks" not in order(at, no_hooks=True)
    assert "hooks" not in order(known(elsewhere))


def test_a_release_carries_its_own_hooks() -> None:
    release = {**HOOK, "name": "bb", "point": "before-release"}
    at = known(HOOK, release)
    params = order(at, "server.release")
    assert [hook.name for hook in read_hooks(params, "server.release")] == ["bb"]


def test_what_an_order_cannot_carry_is_refused_with_one_sentence() -> None:
    play = {**PLAY, "playbook": None, "asset": "site"}
    many = [{**HOOK, "name": f"h{n}"} for n in range(HOOKS_MAX + 1)]
    for at, params, words in (
        (known(play, kind="iso"), {}, "the hook play runs the asset site, which is no file"),
        (known(play, asset=None), {}, "the content of site is not known yet"),
        (known(*many), {}, "9 hooks belong to server.deploy at one, at most 8 fit"),
        (known(), {"no_hooks": "yes"}, "no_hooks must be true or false"),
    ):
        with pytest.raises(RequestProblem, match=words):
            order(at, **params)


@pytest.mark.parametrize(
    ("hooks", "words"),
    [
        ([{**HOOK, "point": "after-release"}], "belongs to server.release"),
        ([SSH], "does not say whose secret it needs"),
        ([{**PLAY, "playbook": None, "asset": "x"}], "does not say what its playbook is"),
        ([HOOK] * (HOOKS_MAX + 1), "hooks is not a list of at most 8"),
        ([7], "a hook is not a map"),
        ("hooks", "hooks is not a list"),
    ],
)
def test_a_site_refuses_an_order_whose_hooks_it_could_not_do(hooks: Any, words: str) -> None:
    params = {
        "server": "01980000-0000-7000-8000-000000000001", "image": "debian", "asset": ASSET,
        "hostname": "www", "hooks": hooks,
    }  # fmt: skip
    with pytest.raises(OrderRefused, match=words):
        check_params("server.deploy", params)


def test_every_point_is_before_or_after_a_verb() -> None:
    for point in POINTS:
        hook = Hook(name="x", point=point, kind="webhook")
        assert hook.before == point.startswith("before")
        assert hook.verb in ("server.deploy", "server.release")
