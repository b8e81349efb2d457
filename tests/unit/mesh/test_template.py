"""Boot templates: what renders, what is refused, and that nothing runs away."""

from contextlib import suppress
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import CodecError
from mesh.proto.template import OUTPUT_BYTES_MAX, check, render
from mesh.proto.template_text import (
    FORMATS,
    TEXT_BYTES_MAX,
    TemplateRefused,
    check_vars,
    digest,
    read_answers,
    text_of,
)
from mesh.proto.template_values import HIDDEN, values_for

EXAMPLE = files("mesh.cli").joinpath("examples", "debian-preseed.cfg")
VALUES: dict[str, Any] = {"hostname": "web1", "ssh_keys": ["ssh-ed25519 A", "it's"]}


def made(text: str, **more: Any) -> str:
    return render(check(text), {**VALUES, **more}, lambda name: f"<{name}>")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("host {{ hostname }}\n", "host web1\n"),
        ("{% for key in ssh_keys %}\n{{ loop.index }} {{ key|quote }}\n{% endfor %}\n",
         "1 'ssh-ed25519 A'\n2 'it'\"'\"'s'\n"),
        ("{% if zone is defined %}{{ zone }}{% else %}UTC{% endif %}", "UTC"),
        ("{{ zone|default('UTC') }} {{ hostname|upper }}", "UTC WEB1"),
        ("{{ ssh_keys|join(', ') }}", "ssh-ed25519 A, it's"),
        ("root {{ secret('install-root') }}", "root <install-root>"),
        ("{% for n in range(3) %}{{ n }}{% endfor %}", "012"),
        ("<a & b>", "<a & b>"),
    ],
)  # fmt: skip
def test_templates_render(text: str, wanted: str) -> None:
    assert made(text) == wanted


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ok\n{{ nope }}", "line 2: 'nope' is undefined"),
        ("{{ ''.__class__ }}", "line 1: templates have no .__class__"),
        ("{{ hostname['__class__'] }}", "line 1: access to attribute '__class__'"),
        ("{{ hostname['upper']() }}", r"only secret\(\) and range\(\) can be called"),
        ("{{ hostname|attr('__class__') }}", "No filter named 'attr'"),
        ("{{ ssh_keys|sort(attribute='x') }}", "templates have no keyword"),
        ("{% include 'x' %}", "line 1: templates have no include"),
        ("{% import 'x' as y %}", "templates have no import"),
        ("{% extends 'x' %}", "templates have no extends"),
        ("{% macro f() %}{{ hostname }}{% endmacro %}", "templates have no macro"),
        ("{% set x = 1 %}", "templates have no assign"),
        ("{{ 10 ** 10 ** 10 }}", "templates have no pow"),
        ("{{ 'a' * 1000000000 }}", "templates have no mul"),
        ("{{ '%0999999999d' % 1 }}", "templates have no mod"),
        ("{% for n in range(1000000000) %}{% endfor %}", "a range has at most 4096"),
        ("{% for a in range(4000) %}{% for b in range(4000) %}{% endfor %}{% endfor %}",
         "its loops have more than 4096 turns"),
        ("{% for n in [[1]] recursive %}{{ loop(n) }}{% endfor %}", "no `recursive`"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "too deep"),
        ("{{ " + "not " * 60 + "1 }}", "too deep"),
        ("{{ " + "~".join(["hostname"] * 400) + " }}", "more than 256 values with ~"),
        ("{% for n in range(4000) %}" + "x" * 100 + "{% endfor %}", "more than 262144 bytes"),
        ("{{ hostname|indent(9999999) }}", "indent takes 0 to 64"),
        ("{{ secret('bmc-1') }}", "ids begin with install-"),
        ("{{ secret(hostname) }}", "secret takes one name in quotes"),
        ("{{ secret }}", "secret is called"),
        ("{% for secret in ssh_keys %}{% endfor %}", "no name for a variable"),
        ("{{ _turns }}", "no name for a variable"),
        ("{{ x", "line 1: unexpected end of template"),
        ("x" * (TEXT_BYTES_MAX + 1), "at most 61440 bytes"),
        ("{{ lipsum }}", "'lipsum' is undefined"),
    ],
)  # fmt: skip
def test_what_a_template_must_not_do_is_refused_with_its_line(text: str, sentence: str) -> None:
    with pytest.raises(TemplateRefused, match=sentence):
        made(text)


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            ["{{", "}}", "{%", "%}", "for a in", "endfor", "if", "endif", "hostname", "'", "(",
             ")", "[", "]", "|join", "|default", "~", ".", "__class__", "range", "9", "\n", " "]
        )
    ).map(" ".join)
    | st.text(max_size=60)
)  # fmt: skip
def test_garbage_never_raises(text: str) -> None:
    with suppress(TemplateRefused):
        assert len(made(text).encode("utf-8", "replace")) <= OUTPUT_BYTES_MAX


def test_variables_of_ours_cannot_be_taken_and_others_are_checked() -> None:
    server = {"name": "web1", "macs": ["52:54:00:00:00:01"]}
    told = values_for(server, hostname="h", ssh_keys=(), given={"zone": "UTC"})
    assert (told["mac"], told["zone"]) == ("52:54:00:00:00:01", "UTC")
    assert told["phone_url"] == HIDDEN
    for name in ("hostname", "secret", "phone_url"):
        with pytest.raises(TemplateRefused, match="is one of ours"):
            values_for(server, hostname="h", ssh_keys=(), given={name: "x"})
    for wrong in ({"A": "x"}, {"a": 1}, {"a": "\x00"}, {"a": "x" * 5000}, [], {"__x": "y"}):
        with pytest.raises(TemplateRefused):
            check_vars(wrong)


def test_what_an_order_says_of_a_template_is_checked() -> None:
    body = {"template": "t", "format": "preseed", "digest": digest("preseed", "x"), "vars": {}}
    assert read_answers(body).body() == body
    changes: list[dict[str, Any]] = [
        {"template": "../x"}, {"format": "no"}, {"digest": "x"}, {"vars": {"A": "b"}},
        {"vars": {"a": 1}}, {"vars": {"a": "x" * 5000}}, {"template": 1},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(CodecError):
            read_answers({**body, **change})
    assert text_of({"format": "preseed", "text": "x"}) == ("preseed", "x")
    for row in (None, {}, {"format": "x", "text": ""}, {"format": "ipxe", "text": 1}):
        assert text_of(row) is None
    assert text_of({"format": "ipxe", "text": "x", "removed_ms": 1}) is None


def test_the_example_renders_for_a_server() -> None:
    server = {"name": "web1", "macs": []}
    values = values_for(server, hostname="web1", ssh_keys=["k 1"], given={})
    text = render(check(EXAMPLE.read_text()), values, lambda _: HIDDEN)
    assert "d-i netcfg/get_hostname string web1\n" in text
    assert "echo 'k 1' >> /target/root/.ssh/authorized_keys; \\\n    wget" in text
    assert "preseed" in FORMATS
