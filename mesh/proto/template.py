"""Boot templates: the text that an installer reads about one server, made out of variables.

Jinja2 cut down until a template cannot run away: it knows no store and no secret. Rules: only
the constructs listed here pass (no include, macro, set, arithmetic or call but ``secret`` and
``range``); turns of loops, joined values and the output are counted against limits; a missing
variable is an error with its line; what a secret or a capability stands for is put in by the
caller after rendering, so no expression ever sees it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError, nodes
from jinja2.exceptions import TemplateError
from jinja2.filters import FILTERS
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS

from mesh.proto.template_text import SECRET_PATTERN, TEXT_BYTES_MAX, TemplateRefused

OUTPUT_BYTES_MAX: Final = 256 << 10
TURNS_MAX: Final = 4096
"""Turns of all loops of one rendering."""
JOINS_MAX: Final = 256
"""``~`` in one template, so that a line of them cannot fill the memory."""
DEPTH_MAX: Final = 40
"""How deep constructs stand in each other."""
VALUE_CHARS_MAX: Final = 64 << 10
"""Of what a filter makes."""

_NODES: Final = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.List,
    nodes.Tuple, nodes.If, nodes.For, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call,
    nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Concat, nodes.Getattr,
    nodes.Getitem,
)  # fmt: skip
_FILTERS: Final = ("default", "d", "first", "last", "length", "count", "lower", "upper", "trim",
                   "sort", "unique")  # fmt: skip
_TESTS: Final = ("defined", "undefined", "none", "string", "in", "eq", "ne", "divisibleby",
                 "odd", "even", "==", "!=")  # fmt: skip
_TOO_DEEP: Final = "constructs stand too deep in each other"
_LOOP: Final = frozenset({"index", "index0", "first", "last", "length"})


@dataclass(frozen=True, slots=True)
class Checked:
    """A template that may be rendered, and the secrets that it asks for."""

    tree: nodes.Template
    environment: ImmutableSandboxedEnvironment
    secrets: frozenset[str]


def check(text: str) -> Checked:
    """Return a template that keeps to the rules; raises TemplateRefused."""
    if len(text.encode("utf-8", "replace")) > TEXT_BYTES_MAX:
        raise TemplateRefused(f"a template has at most {TEXT_BYTES_MAX} bytes")
    environment = _environment()
    try:
        tree = environment.parse(text)
        secrets = _walk(tree)
    except TemplateSyntaxError as exc:
        raise TemplateRefused(f"line {exc.lineno}: {exc.message}") from exc
    except RecursionError:
        raise TemplateRefused(
            "the template's constructs stand too deep in each other"
        ) from None
    return Checked(tree, environment, secrets)


def render(checked: Checked, values: Mapping[str, Any], secret: Callable[[str], str]) -> str:
    """Return the text; raises TemplateRefused with the line of what is wrong.

    ``secret(name)`` returns what stands for a secret until the caller puts it in.
    """
    turns = _Turns()
    told = {**values, "secret": secret, "range": _range, "_turns": turns.of}
    pieces: list[str] = []
    size = 0
    try:
        template = checked.environment.from_string(_counted(checked.tree))
        for piece in template.generate(told):
            size += len(piece.encode("utf-8", "replace"))
            if size > OUTPUT_BYTES_MAX:
                raise TemplateRefused(f"it makes more than {OUTPUT_BYTES_MAX} bytes")
            pieces.append(piece)
    except UndefinedError as exc:
        raise TemplateRefused(f"{_at(exc)}{exc.message}") from exc
    except (TemplateError, TemplateRefused, TypeError, ValueError, OverflowError) as exc:
        raise TemplateRefused(f"{_at(exc)}{str(exc)[:200]}") from exc
    except RecursionError:
        raise TemplateRefused(
            "the template's constructs stand too deep in each other"
        ) from None
    return "".join(pieces)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, cache_size=0,
        trim_blocks=True, lstrip_blocks=True, optimized=False,
    )  # fmt: skip
    environment.filters = {name: FILTERS[name] for name in _FILTERS}
    environment.filters |= {"join": _join, "indent": _indent, "quote": _quote}
    environment.tests = {name: TESTS[name] for name in _TESTS}
    environment.globals = {}
    return environment


def _walk(tree: nodes.Template) -> frozenset[str]:
    """Refuse what is not listed; return the names of the secrets."""
    secrets: set[str] = set()
    called: set[int] = set()
    joins = 0
    ahead: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while ahead:
        node, depth = ahead.pop()
        if depth > DEPTH_MAX:
            raise TemplateRefused(
                f"line {node.lineno}: constructs stand too deep in each other"
            )
        if not isinstance(node, _NODES):
            raise TemplateRefused(f"line {node.lineno}: templates have no {_word(node)}")
        if isinstance(node, nodes.Concat):
            joins += len(node.nodes)
        if joins > JOINS_MAX:
            raise TemplateRefused(f"line {node.lineno}: more than {JOINS_MAX} values with ~")
        if isinstance(node, nodes.Call):
            secrets |= _call(node)
            called.add(id(node.node))
        if isinstance(node, nodes.Name):
            _name(node, called)
        if isinstance(node, nodes.For) and (node.recursive or node.test is not None):
            raise TemplateRefused(f"line {node.lineno}: loops take no `recursive` and no `if`")
        if isinstance(node, nodes.Getattr):
            _attribute(node)
        ahead += [(child, depth + 1) for child in node.iter_child_nodes()]
    return frozenset(secrets)


def _call(node: nodes.Call) -> set[str]:
    what = node.node.name if isinstance(node.node, nodes.Name) else ""
    plain = not (node.kwargs or node.dyn_args or node.dyn_kwargs)
    given = [arg.value for arg in node.args if isinstance(arg, nodes.Const)]
    if what == "range" and plain and 1 <= len(node.args) <= 3:
        return set()
    if what != "secret":
        raise TemplateRefused(f"line {node.lineno}: only secret() and range() can be called")
    if not plain or len(node.args) != 1 or not given or not isinstance(given[0], str):
        raise TemplateRefused(f"line {node.lineno}: secret takes one name in quotes")
    if not SECRET_PATTERN.match(given[0]):
        raise TemplateRefused(
            f"line {node.lineno}: a template reads secrets whose ids begin with install-, not"
            f" {given[0][:60]!r}"
        )
    return {given[0]}


def _name(node: nodes.Name, called: set[int]) -> None:
    if node.name.startswith("_") or (node.ctx == "store" and node.name in ("secret", "range")):
        raise TemplateRefused(f"line {node.lineno}: {node.name[:60]} is no name for a variable")
    if node.name in ("secret", "range") and id(node) not in called:
        raise TemplateRefused(f"line {node.lineno}: {node.name} is called, as {node.name}(...)")


def _attribute(node: nodes.Getattr) -> None:
    of_loop = isinstance(node.node, nodes.Name) and node.node.name == "loop"
    if not of_loop or node.attr not in _LOOP:
        raise TemplateRefused(f"line {node.lineno}: templates have no .{node.attr[:60]}")


def _counted(tree: nodes.Template) -> nodes.Template:
    """Return the tree with every loop counted."""
    for loop in tree.find_all(nodes.For):
        if not (isinstance(loop.iter, nodes.Call) and _is_count(loop.iter)):
            at = loop.iter.lineno
            name = nodes.Name("_turns", "load", lineno=at)
            loop.iter = nodes.Call(name, [loop.iter], [], None, None, lineno=at)
    return tree


def _is_count(call: nodes.Call) -> bool:
    return isinstance(call.node, nodes.Name) and call.node.name == "_turns"


class _Turns:
    """Counts the turns of the loops of one rendering."""

    def __init__(self) -> None:
        self._left = TURNS_MAX

    def of(self, values: Iterable[Any]) -> Iterator[Any]:
        """Yield the values while there are turns left."""
        for value in values:
            self._left -= 1
            if self._left < 0:
                raise TemplateRefused(f"its loops have more than {TURNS_MAX} turns")
            yield value


def _range(*bounds: Any) -> range:
    found = range(*bounds)
    try:
        fits = len(found) <= TURNS_MAX
    except OverflowError:
        fits = False
    if not fits:
        raise TemplateRefused(f"a range has at most {TURNS_MAX} numbers")
    return found


def _join(values: Iterable[Any], between: str = "") -> str:
    texts = values.split() if isinstance(values, str) else [str(value) for value in values]
    if sum(map(len, texts)) + len(texts) * len(str(between)) > VALUE_CHARS_MAX:
        raise TemplateRefused(f"join makes more than {VALUE_CHARS_MAX} characters")
    return str(between).join(texts)


def _indent(value: str, width: int = 4) -> str:
    if not isinstance(width, int) or not 0 <= width <= 64:
        raise TemplateRefused("indent takes 0 to 64 spaces")
    lines = str(value).split("\n")
    if len(str(value)) + width * len(lines) > VALUE_CHARS_MAX:
        raise TemplateRefused(f"indent makes more than {VALUE_CHARS_MAX} characters")
    return ("\n" + " " * width).join(lines)


def _quote(value: Any) -> str:
    """Return a value as one word of a shell's line."""
    text = str(value)
    if len(text) > VALUE_CHARS_MAX // 4:
        raise TemplateRefused(f"quote takes at most {VALUE_CHARS_MAX // 4} characters")
    return "'" + text.replace("'", "'\"'\"'") + "'"


def _word(node: nodes.Node) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).lower()


def _at(exc: BaseException) -> str:
    """Return the line of the template that an error came from, as words to begin with."""
    at, trace = "", exc.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in ("<template>", "<unknown>"):
            at = f"line {trace.tb_lineno}: "
        trace = trace.tb_next
    return at
