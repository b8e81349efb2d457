"""The one filter language of lists."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.rest.filters import CHARS_MAX, Filter, matches, parse
from mesh.rest.problems import RequestProblem

KEYS = {"site": "site", "state": "state", "role": "roles", "hold": "hold", "at": "sites.site"}
TEXT = ("name", "macs", "summary")
SERVER: dict[str, Any] = {
    "name": "web-1", "site": "fra1", "state": "deploying failed", "hold": False, "roles": [],
    "macs": ["52:54:00:00:00:01"], "summary": None, "sites": [{"site": "a"}, {"site": "b"}],
}  # fmt: skip


def passes(text: str, item: dict[str, Any] | None = None) -> bool:
    return matches(parse(text, KEYS), item or SERVER, KEYS, TEXT)


@pytest.mark.parametrize(
    "text",
    [
        "", "  ", "site:fra1", "SITE:FRA1", "site:ams1 site:fra1", "site:!ams1", "web", "WEB-1",
        'state:"deploying failed"', "state:*failed", "state:dep*g*ed", "52:54:00", "role:none",
        "hold:no", "hold:false", "at:b", "at:a at:c", '"web"', "web 00:01", "site:f* web",
        "state:!active state:!available",
    ],
)  # fmt: skip
def test_what_fits_passes(text: str) -> None:
    assert passes(text)


@pytest.mark.parametrize(
    "text",
    [
        "site:ams1", "site:fra", "site:!fra1", "site:!ams1 site:!fra1", "db", "web db", "at:c",
        "state:failed", "state:*x*", "hold:yes", '"web db"', "state:deploying*failed*x",
        "state:failed*failed", "role:!none",
    ],
)  # fmt: skip
def test_what_does_not_fit_is_left_out(text: str) -> None:
    assert not passes(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sit:fra1", "there is no filter key 'sit' here; known: at, hold, role, site, state"),
        ("site:", "write site:VALUE"),
        ("site:!", "write site:VALUE"),
        ('state:"deploying', "a quote is opened and not closed"),
        ("x" * (CHARS_MAX + 1), "at most 2000"),
        ("a " * 51, "at most 50"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_one_sentence(text: str, says: str) -> None:
    with pytest.raises(RequestProblem) as caught:
        parse(text, KEYS)
    assert says in str(caught.value)
    assert caught.value.code == "bad-request"


def test_only_plain_values_can_be_looked_up() -> None:
    kept = parse("site:fra1 site:ams1 state:dep* state:active hold:none", KEYS)
    assert kept.exact("site") == ("fra1", "ams1")
    assert (kept.exact("state"), kept.exact("hold"), kept.exact("role")) == (None, None, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.text(alphabet=st.sampled_from('site:!*" x\t'), max_size=60) | st.text())
def test_garbage_never_raises_anything_else(text: str) -> None:
    try:
        kept = parse(text, KEYS)
    except RequestProblem:
        return
    assert isinstance(kept, Filter)
    assert matches(kept, SERVER, KEYS, TEXT) in (True, False)


@given(st.dictionaries(st.sampled_from(["site", "state", "roles", "sites", "name"]), JSON))
def test_any_resource_can_be_looked_at(item: dict[str, Any]) -> None:
    kept = parse("site:a state:!b* role:none at:x word", KEYS)
    assert matches(kept, item, KEYS, TEXT) in (True, False)


@given(st.text(min_size=1, max_size=20).filter(lambda t: '"' not in t and t.strip()))
def test_a_quoted_value_finds_exactly_itself(value: str) -> None:
    item = {"site": value}
    if "*" not in value and not value.startswith("!"):
        assert matches(parse(f'site:"{value}"', KEYS), item, KEYS, TEXT)
