from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.proto.order import KINDS, check_params
from mesh.rest.orders import Draft, KnownLists, draft
from mesh.rest.problems import RequestProblem

NEW = "01890a5d-ac96-774b-bcce-b302099a8057"
OLD = "01890a5d-ac96-774b-bcce-b302099a8058"
MAC = "52:54:00:00:00:01"
ASSET = "b3:" + "2" * 64
SERVER: dict[str, Any] = {
    "id": OLD, "name": "srv1", "site": "one", "cleaned": False, "state": "available",
    "bmc": "http://b", "hold": False, "job": None,
    "macs": [],
}  # fmt: skip
IMAGE: dict[str, Any] = {"kind": "image", "asset": ASSET, "cmdline": None, "members": []}
KNOWN = KnownLists(
    servers=[SERVER],
    pending=[{"mac": MAC, "site": "one"}],
    nodes=[
        {"id": letter * 32, "name": name, "site": site, "status": status, "roles": ["node"]}
        for letter, name, site, status in (
            ("a", "late", "one", "member"), ("b", "gone", "one", "left"),
            ("c", "twin", "one", "member"), ("d", "twin", "two", "member"),
        )
    ],
    jobs=[{"id": NEW, "site": "one", "server": OLD, "state": "succeeded"}],
    images={
        "debian": {**IMAGE, "name": "debian"},
        "cloud": {**IMAGE, "name": "cloud", "kind": "qcow2"},
        "new": {**IMAGE, "name": "new", "asset": None},
        "notes": {**IMAGE, "name": "notes", "kind": "file"},
        "cd": {**IMAGE, "name": "cd", "kind": "iso"},
        "rescue": {
            **IMAGE, "name": "rescue", "kind": "live", "asset": None, "cmdline": "quiet",
            "members": [
                {"role": "kernel", "name": "k", "asset": ASSET},
                {"role": "initrd", "name": "i", "asset": ASSET},
            ],
        },
        "half": {
            **IMAGE, "name": "half", "kind": "live", "asset": None,
            "members": [{"role": "kernel", "name": "k2", "asset": None}],
        },
    },
)  # fmt: skip


def ask(**request: Any) -> Draft:
    made = draft(request, KNOWN, NEW)
    check_params(made.kind, made.params)
    return made


def test_accept_finds_the_site_of_the_machine() -> None:
    made = ask(kind="server.accept", machine="52-54-00-00-00-01", params={"name": "srv2"})
    assert (made.site, made.server, made.params["machine"]) == ("one", NEW, MAC)


def test_deploy_onto_a_never_cleaned_server_says_that_it_destroys() -> None:
    made = ask(kind="server.deploy", server="srv1", params={"image": "debian"})
    assert made.order_class == "destructive"
    assert made.params == {
        "server": OLD, "image": "debian", "asset": ASSET, "hostname": "srv1", "ssh_keys": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("request_body", "code", "words"),
    [
        ({"kind": "server.explode"}, "bad-request", "no order"),
        ({"kind": "server.deploy", "server": "nix"}, "not-found", "no server nix"),
        (
            {"kind": "server.deploy", "server": "srv1", "params": {"image": "x"}},
            "not-found", "no asset",
        ),
        (
            {"kind": "server.deploy", "server": "srv1", "params": {"image": "new"}},
            "conflict", "not known yet",
        ),
        (
            {"kind": "server.deploy", "server": "srv1", "params": {"image": "notes"}},
            "conflict", "notes is a file",
        ),
        ({"kind": "server.accept", "machine": "zz", "params": {}}, "bad-request", "no MAC"),
        (
            {"kind": "server.accept", "machine": "52:54:00:00:00:09", "params": {"name": "a"}},
            "not-found", "waits",
        ),
        (
            {"kind": "server.accept", "machine": MAC, "params": {"name": "srv1"}},
            "conflict", "already",
        ),
        ({"kind": "server.power", "server": "srv1"}, "bad-request", "params.on"),
        ({"kind": "job.retry", "job": "x"}, "not-found", "no job"),
        (
            {"kind": "server.release", "server": "srv1", "site": "two"},
            "bad-request", "site one",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_sentence(
    request_body: dict[str, Any], code: str, words: str
) -> None:
    with pytest.raises(RequestProblem, match=words) as caught:
        draft(request_body, KNOWN, NEW)
    assert caught.value.code == code


def known(server: dict[str, Any], **job: Any) -> KnownLists:
    jobs = [{"id": NEW, "site": "one", "server": OLD, **job}] if job else []
    return KnownLists(
        servers=[{**SERVER, **server}], pending=[], jobs=jobs,
        images={"debian": {**IMAGE, "name": "debian"}},
    )  # fmt: skip


DEPLOY = {"kind": "server.deploy", "server": "srv1", "params": {"image": "debian"}}


@pytest.mark.parametrize(
    ("kind", "server", "sentence"),
    [
        ("server.deploy", {"state": "active"}, "srv1 is active; release it first"),
        ("server.deploy", {"hold": True}, "srv1 is held; take the hold off first"),
        (
            "server.release", {"cleaned": True},
            "srv1 is available and clean; there is nothing to release",
        ),
        ("server.power", {"bmc": None}, "srv1 has no BMC: press its power button"),
    ],
)  # fmt: skip
def test_what_the_site_would_refuse_is_refused_with_its_words(
    kind: str, server: dict[str, Any], sentence: str
) -> None:
    request = {**DEPLOY, "kind": kind, "params": {"image": "debian", "on": True}}
    with pytest.raises(RequestProblem) as caught:
        draft(request, known(server), NEW)
    assert (caught.value.code, str(caught.value)) == ("conflict", sentence)


def test_an_order_that_will_wait_is_judged_when_its_turn_comes() -> None:
    active = {"state": "active"}
    assert draft(DEPLOY, known({**active, "job": NEW}), NEW).kind == "server.deploy"
    assert draft(DEPLOY, known(active, state="queued"), NEW).kind == "server.deploy"
    with pytest.raises(RequestProblem, match="release it first"):
        draft(DEPLOY, known(active, state="failed"), NEW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.sampled_from([*sorted(KINDS), "x"]), JSON, JSON, JSON, JSON)
def test_garbage_never_raises_anything_else(
    kind: str, server: Any, machine: Any, job: Any, params: Any
) -> None:
    request = {"kind": kind, "server": server, "machine": machine, "job": job, "params": params}
    try:
        draft(request, KNOWN, NEW)
    except RequestProblem:
        return


def test_secrets_are_handed_on_to_a_member_by_name_or_id() -> None:
    made = ask(kind="secret.release", node="late", params={"secrets": ["bmc-1"]})
    assert (made.site, made.server, made.order_class) == ("one", None, "normal")
    assert made.params == {"node": "a" * 32, "name": "late", "secrets": ["bmc-1"]}
    made = ask(kind="secret.release", node="d" * 32)
    assert (made.site, made.params) == ("two", {"node": "d" * 32, "name": "twin"})
    for request, code, told in (
        ({"node": "gone"}, "not-found", "no node 'gone'"),
        ({}, "not-found", "no node ''"),
        ({"node": "twin"}, "conflict", "several nodes are called 'twin'"),
        ({"node": "late", "site": "two"}, "bad-request", "late is at site one"),
        ({"node": "late", "params": {"secrets": "x"}}, "bad-request", "must be a list"),
    ):
        with pytest.raises(RequestProblem, match=told) as refused:
            ask(kind="secret.release", **request)
        assert refused.value.code == code
