"""Structured log: a constant lower-case phrase plus fields; one line per finished thing.

On a terminal a readable line, elsewhere one JSON object a line, always on standard error. It
knows nothing of rotation (the service manager's work). Rule: field names come from ``FIELDS``,
so that one grep works over all services.
"""

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TextIO

_NAMES: Final = """
node site peer hub mac ip iface xid job step digest
bmc switch port error count bytes asset name url path
file server order kind state ms s role token address set
seq epoch reason session service version signal detail limit
method status user arch scope pid attempt progress
"""
FIELDS: Final = frozenset(_NAMES.split())
VALUE_CHARS_MAX: Final = 500
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


@dataclass
class _Sink:
    stream: TextIO | None = None
    level: int = 20
    human: bool | None = None


_SINK = _Sink()


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Set the least level that is written, and where to (standard error by default)."""
    assert level in LEVELS, f"log level {level!r}"
    _SINK.level = LEVELS[level]
    _SINK.stream = stream
    _SINK.human = None


class Log:
    """The log of one service."""

    def __init__(self, service: str) -> None:
        self._service = service

    def debug(self, phrase: str, **fields: Any) -> None:
        """Write what only a developer wants to see."""
        self._write("debug", phrase, fields)

    def info(self, phrase: str, **fields: Any) -> None:
        """Write one finished thing."""
        self._write("info", phrase, fields)

    def warning(self, phrase: str, **fields: Any) -> None:
        """Write something that a person should look at some day."""
        self._write("warning", phrase, fields)

    def error(self, phrase: str, **fields: Any) -> None:
        """Write something that a person should look at now."""
        self._write("error", phrase, fields)

    def _write(self, level: str, phrase: str, fields: dict[str, Any]) -> None:
        assert fields.keys() <= FIELDS, f"log fields not in the list: {fields.keys() - FIELDS}"
        if LEVELS[level] < _SINK.level:
            return
        stream = _SINK.stream or sys.stderr
        if _SINK.human is None:
            _SINK.human = stream.isatty()
        shown = {key: _shown(value) for key, value in fields.items()}
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if _SINK.human:
            tail = " ".join(f"{key}={value}" for key, value in shown.items())
            line = f"{moment[11:23]} {level:<7} {self._service}: {phrase} {tail}".rstrip()
        else:
            line = json.dumps(
                {"t": moment, "level": level, "service": self._service, "msg": phrase, **shown}
            )
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):
            pass  # a closed terminal must not end a service


def get_log(service: str) -> Log:
    """Return the log of a service, for example ``get_log("dhcp")``."""
    return Log(service)


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = value.hex() if isinstance(value, bytes) else str(value)
    text = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return text if len(text) <= VALUE_CHARS_MAX else text[:VALUE_CHARS_MAX] + "..."
