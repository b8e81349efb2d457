"""Orders to install: what is asked for becomes an order, or is refused with its line."""

from typing import Any

import pytest

from mesh.proto.order import DESTRUCTIVE, check_params
from mesh.proto.template_text import digest
from mesh.rest.orders import KnownLists, draft
from mesh.rest.problems import RequestProblem

SERVER = {
    "id": "01890000-0000-7000-8000-000000000001", "name": "web1", "site": "lab",
    "state": "available", "cleaned": False, "macs": ["52:54:00:00:00:01"],
}  # fmt: skip
PARTS = [
    {"role": role, "name": role, "asset": "b3:" + sign * 64}
    for role, sign in (("kernel", "1"), ("initrd", "2"))
]
TEXT = "host {{ hostname }}\nmirror {{ mirror }}\n"


def asked(text: str = TEXT, **params: Any) -> Any:
    images = {
        "di": {"name": "di", "kind": "live", "cmdline": None, "members": PARTS},
        "disk": {"name": "disk", "kind": "image", "asset": "b3:" + "3" * 64},
    }
    templates = {"seed": {"name": "seed", "format": "preseed", "text": text}}
    known = KnownLists(
        servers=[SERVER], pending=[], jobs=[], images=images, templates=templates
    )
    body = {"image": "di", "template": "seed", "vars": {"mirror": "m"}, **params}
    request = {"kind": "server.deploy", "server": "web1", "params": body}
    return draft(request, known, "new")


def test_an_installer_is_destructive_and_carries_the_templates_digest() -> None:
    made = asked(ssh_keys=["k"])
    check_params(made.kind, made.params)
    assert made.order_class == DESTRUCTIVE
    assert made.params["ssh_keys"] == ["k"]
    boot = made.params["boot"]
    assert boot["kind"] == "installer"
    assert boot["answers"] == {
        "template": "seed", "format": "preseed", "digest": digest("preseed", TEXT),
        "vars": {"mirror": "m"},
    }  # fmt: skip
    assert TEXT not in str(made.params), "the order names it, no more"


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"vars": {}}, "template seed cannot be rendered for web1: line 2: 'mirror' is undef"),
        ({"vars": {"hostname": "x"}}, "the variable hostname is one of ours"),
        ({"vars": {"A": "x"}}, "no name of a variable"),
        ({"vars": "x"}, "variables are a map"),
        ({"template": "no"}, "there is no template 'no'"),
        ({"template": 7}, "there is no template '7'"),
        ({"image": "disk"}, "disk is of kind image; an installer has a kernel"),
        ({"user_data": "x"}, "exclude each other"),
        ({"template": None, "image": "disk"}, "vars go with a template"),
        ({"text": "{{ secret('bmc-1') }}"}, "ids begin with install-"),
    ],
)
def test_what_cannot_be_installed_so_is_refused(params: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestProblem, match=sentence):
        asked(**params)
