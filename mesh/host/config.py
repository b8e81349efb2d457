"""Configuration: one TOML file, the environment and flags on top, into one frozen tree.

It knows nothing of the roles' settings: a role hands in its dataclass. Rule: an unknown key is
an error that names the nearest match, and a wrong value is one sentence with the value and what
would be right. Only ``main`` reads configuration.
"""

import dataclasses
import difflib
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from mesh.errors import Refused

T = TypeVar("T")


def load(
    kind: type[T],
    file: Path | None,
    environ: Mapping[str, str],
    flags: dict[str, Any],
    below: Mapping[str, Any] | None = None,
) -> T:
    """Build the dataclass ``kind`` from a TOML file, ``RACKMESH_SECTION__KEY``, and flags.

    ``flags`` is a nested map in the shape of the tree; None stands for "not given". ``below``
    holds what counts where nothing else is given. Raises Refused with one sentence.
    """
    tree: dict[str, Any] = dict(below or {})
    if file is not None:
        try:
            tree |= tomllib.loads(file.read_text())
        except FileNotFoundError:
            raise Refused(f"the configuration file {file} does not exist") from None
        except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as exc:
            raise Refused(f"the configuration file {file} cannot be read: {exc}") from exc
    for name, value in environ.items():
        if name.startswith("RACKMESH_") and "__" in name:
            section, key = name.removeprefix("RACKMESH_").lower().split("__", 1)
            tree.setdefault(section, {})[key] = value
    _overlay(tree, flags)
    return _build(kind, tree, "")


def _overlay(tree: dict[str, Any], flags: Mapping[str, Any]) -> None:
    for key, value in flags.items():
        if isinstance(value, Mapping):
            _overlay(tree.setdefault(key, {}), value)
        elif value is not None:
            tree[key] = value


def _build(kind: type[T], tree: Mapping[str, Any], where: str) -> T:
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(typing.cast(Any, kind))}
    for key in tree:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {sorted(known)}"
            raise Refused(f"unknown setting {where + key!r}{hint}")
    values = {key: _value(hints[key], tree[key], where + key) for key in tree}
    try:
        return kind(**values)
    except (TypeError, ValueError) as exc:
        raise Refused(
            f"configuration{' of ' + where.rstrip('.') if where else ''}: {exc}"
        ) from exc


def _value(hint: Any, value: Any, where: str) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        if value is None or (value == "" and len(inner) < len(typing.get_args(hint))):
            return None
        return _value(inner[0], value, where)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise Refused(f"{where} must be a section, not {value!r}")
        return _build(typing.cast(type[Any], hint), value, where + ".")
    if typing.get_origin(hint) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise Refused(f"{where} must be a list, not {value!r}")
        element = typing.get_args(hint)[0]
        return tuple(_value(element, item, where) for item in items if item != "")
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is bool and isinstance(value, str) and value.lower() in _TRUTH:
        return _TRUTH[value.lower()]
    if hint is Path and isinstance(value, (str, os.PathLike)):
        return Path(value)
    if hint is int and isinstance(value, str) and value.lstrip("-").isdigit():
        return int(value)
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise Refused(f"{where} must be {hint.__name__}, not {value!r}")


_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def default_data(role: str, environ: Mapping[str, str]) -> Path:
    """Return where a role keeps its data by default: system wide as root, else XDG."""
    if os.geteuid() == 0:
        return Path("/var/lib/rackmesh") / role
    base = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "rackmesh" / role
