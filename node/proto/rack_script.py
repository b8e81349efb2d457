"""The part of the iPXE script language that our nodes emit, run by simulated servers.

It knows no network: it asks for one thing at a time and is told how that went. Rule: a script
is hostile; whatever it says, the run ends within a bounded number of commands and downloads.

Semantics as in iPXE (src/image/script.c, src/core/exec.c): a line is expanded, then split at
blanks; a command that fails ends its script unless ``||`` follows; ``exit`` ends the script
that says it, and the one that chained it goes on.
"""

import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urljoin

MAGIC: Final = "#!ipxe"
SCRIPT_BYTES_MAX: Final = 64 << 10
LINE_CHARS_MAX: Final = 4096
STEPS_MAX: Final = 2000
FETCHES_MAX: Final = 256
CHAIN_DEPTH_MAX: Final = 8
INITRDS_MAX: Final = 16
VARIABLES_MAX: Final = 128
SLEEP_S_MAX: Final = 60.0

_SETTING = re.compile(r"\$\{([^${}]{0,128})\}")
_LONG: Final = {"-n": "--name", "-t": "--timeout"}
_VALUED: Final = frozenset({"--name", "--timeout", "--drive", "-d"})
_SILENT: Final = frozenset(
    {"dhcp", "ifopen", "ifclose", "ifconf", "ifstat", "imgstat", "route", "console"}
)
"""Commands that have already happened, or only draw, in a simulated server."""


@dataclass(frozen=True, slots=True)
class FetchScript:
    """Download this and hand its bytes back."""

    url: str


@dataclass(frozen=True, slots=True)
class FetchImage:
    """Download this whole; its bytes do not matter."""

    url: str


@dataclass(frozen=True, slots=True)
class Say:
    """Print one line on the console."""

    text: str


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait this long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class TryDisk:
    """Boot from the first disk; answered only when that fails."""


@dataclass(frozen=True, slots=True)
class TryDisc:
    """Boot an ISO that is read by HTTP; answered only when that fails."""

    url: str


@dataclass(frozen=True, slots=True)
class Boot:
    """End: start this kernel."""

    kernel: str
    arguments: str
    initrds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exited:
    """End: back to the firmware, which goes on with its next boot device."""

    ok: bool
    why: str


@dataclass(frozen=True, slots=True)
class Restart:
    """End: restart the machine."""


@dataclass(frozen=True, slots=True)
class SwitchOff:
    """End: switch the machine off."""


Ask = FetchScript | FetchImage | Say | Sleep | TryDisk | TryDisc
End = Boot | Exited | Restart | SwitchOff


class _Over(Exception):
    """Unwinds the interpreter when the whole run has come to its end."""

    def __init__(self, end: End) -> None:
        super().__init__()
        self.end = end


class _Leave(Exception):
    """Ends the running script with a status (``exit``)."""

    def __init__(self, ok: bool) -> None:
        super().__init__()
        self.ok = ok


Steps = Generator[Ask, "Answer", bool]


@dataclass(frozen=True, slots=True)
class Answer:
    """How what was asked for went; ``body`` only for FetchScript."""

    ok: bool
    body: bytes = b""


@dataclass(slots=True)
class _Script:
    """A script that runs: its lines, where it is, and where it came from."""

    url: str
    lines: list[str]
    at: int = 0
    labels: dict[str, int] = field(default_factory=dict[str, int])


class _Replace(Exception):
    """Puts another script in the place of the running one (``chain --replace``)."""

    def __init__(self, script: _Script) -> None:
        super().__init__()
        self.script = script


class ScriptRun:
    """One boot by iPXE: ``start`` with the first URL, then ``on_answer`` until an End comes."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = dict(settings)
        self._steps_left = STEPS_MAX
        self._fetches_left = FETCHES_MAX
        self._kernel: tuple[str, str] | None = None
        self._initrds: dict[str, str] = {}
        self._why = "the script ended"
        self._run: Generator[Ask, Answer, End] | None = None

    def start(self, url: str) -> Ask | End:
        """Begin as iPXE does with the filename that DHCP gave."""
        assert self._run is None, "a run starts once"
        self._run = self._whole(url)
        return next(self._run)

    def on_answer(self, answer: Answer) -> Ask | End:
        """Go on with the answer to the last Ask."""
        assert self._run is not None, "start comes first"
        try:
            return self._run.send(answer)
        except StopIteration as stop:
            end: End = stop.value
            return end

    def _whole(self, url: str) -> Generator[Ask, Answer, End]:
        try:
            ok = yield from self._chain(url, 1)
        except _Over as over:
            return over.end
        return Exited(ok, self._why)

    def _chain(self, url: str, depth: int) -> Steps:
        if depth > CHAIN_DEPTH_MAX:
            return self._fail(f"scripts are chained deeper than {CHAIN_DEPTH_MAX}")
        script = yield from self._load(url)
        while script is not None:
            try:
                return (yield from self._lines(script, depth))
            except _Leave as leave:
                return leave.ok
            except _Replace as replace:
                script = replace.script
        return False

    def _load(self, url: str) -> Generator[Ask, Answer, _Script | None]:
        self._count_fetch()
        answer = yield FetchScript(url)
        if not answer.ok:
            self._fail(f"{_bare(url)} could not be fetched")
            return None
        text = answer.body.decode("utf-8", "replace")
        if len(answer.body) > SCRIPT_BYTES_MAX or not text.startswith(MAGIC):
            self._fail(f"{_bare(url)} is no iPXE script")
            return None
        script = _Script(url, text.splitlines())
        for number, line in enumerate(script.lines):
            if line.startswith(":"):
                script.labels.setdefault(line[1:].strip(), number)
        return script

    def _lines(self, script: _Script, depth: int) -> Steps:
        while script.at < len(script.lines):
            line = script.lines[script.at]
            script.at += 1
            if line.startswith(("#", ":")):
                continue
            words = self._expand(line).split()
            ok = True
            for operator, command in _commands(words):
                if ok != (operator == "&&"):
                    continue
                self._steps_left -= 1
                if self._steps_left < 0:
                    raise _Over(Exited(False, f"the script took over {STEPS_MAX} commands"))
                ok = not command or (yield from self._command(script, command, depth))
            if not ok:
                return False
        return True

    def _command(self, script: _Script, words: list[str], depth: int) -> Steps:
        name, arguments = words[0], words[1:]
        match name:
            case "chain" | "imgexec":
                return (yield from self._do_chain(script, arguments, depth))
            case "kernel" | "imgselect" | "initrd" | "imgfetch" | "module":
                return (yield from self._do_image(script, name, arguments))
            case "echo":
                yield Say(" ".join(arguments))
                return True
            case "sleep":
                yield Sleep(min(float(_number(arguments)), SLEEP_S_MAX))
                return True
            case "sanboot":
                _, rest = _options(arguments)
                if rest:
                    self._count_fetch()
                    yield TryDisc(urljoin(script.url, rest[0]))
                    return self._fail(f"{_bare(rest[0])} does not boot")
                yield TryDisk()
                return self._fail("the first disk does not boot")
            case _:
                return self._plain(script, name, arguments)

    def _plain(self, script: _Script, name: str, arguments: list[str]) -> bool:
        """Run a command that asks for nothing outside."""
        plain: dict[str, Callable[[], bool]] = {
            "boot": self._do_boot,
            "goto": lambda: self._do_goto(script, arguments),
            "set": lambda: self._do_set(arguments),
            "clear": lambda: self._do_clear(arguments),
            "iseq": lambda: len(arguments) == 2 and arguments[0] == arguments[1],
            "isset": lambda: bool(arguments),
            "imgfree": lambda: self._do_free(arguments),
        }
        match name:
            case "exit":
                raise _Leave(_number(arguments) == 0)
            case "reboot":
                raise _Over(Restart())
            case "poweroff":
                raise _Over(SwitchOff())
            case _:
                pass
        if name in _SILENT:
            return True
        if name not in plain:
            return self._fail(f"{name[:40]!r} is no command that a simulated server knows")
        return plain[name]()

    def _do_chain(self, script: _Script, arguments: list[str], depth: int) -> Steps:
        options, rest = _options(arguments)
        if not rest:
            return self._fail("chain needs a URL")
        url = urljoin(script.url, rest[0])
        if not {"--replace", "-r"} & options.keys():
            return (yield from self._chain(url, depth + 1))
        found = yield from self._load(url)
        if found is not None:
            raise _Replace(found)
        return False

    def _do_image(self, script: _Script, name: str, arguments: list[str]) -> Steps:
        options, rest = _options(arguments)
        if not rest:
            return self._fail(f"{name} needs a URL")
        url = urljoin(script.url, rest[0])
        self._count_fetch()
        answer = yield FetchImage(url)
        if not answer.ok:
            return self._fail(f"{_bare(url)} could not be fetched")
        if name in ("kernel", "imgselect"):
            self._kernel = (url, " ".join(rest[1:]))
        elif len(self._initrds) >= INITRDS_MAX:
            return self._fail(f"more than {INITRDS_MAX} initrds")
        else:  # every image that is no kernel is an initrd of it, imgfetch or not
            self._initrds[options.get("--name") or _bare(url).rpartition("/")[2]] = url
        return True

    def _do_boot(self) -> bool:
        if self._kernel is None:
            return self._fail("boot without a kernel")
        raise _Over(Boot(*self._kernel, tuple(self._initrds.values())))

    def _do_free(self, arguments: list[str]) -> bool:
        if arguments:
            return self._initrds.pop(arguments[0], None) is not None
        self._kernel = None
        self._initrds.clear()
        return True

    def _do_goto(self, script: _Script, arguments: list[str]) -> bool:
        label = arguments[0] if arguments else ""
        if label not in script.labels:
            return self._fail(f"there is no label {label[:40]!r}")
        script.at = script.labels[label]
        return True

    def _do_set(self, arguments: list[str]) -> bool:
        if not arguments or len(self._settings) >= VARIABLES_MAX:
            return self._fail("set needs a name, and there may be 128 of them")
        self._settings[arguments[0]] = " ".join(arguments[1:])
        return True

    def _do_clear(self, arguments: list[str]) -> bool:
        for name in arguments:
            self._settings.pop(name, None)
        return True

    def _expand(self, line: str) -> str:
        """Replace ``${name}`` and ``${name:type}``, inner first; unknown ones are empty."""
        line = line[:LINE_CHARS_MAX]
        for _ in range(8):
            wider = _SETTING.sub(lambda found: self._setting(found[1]), line)
            if wider == line or len(wider) > LINE_CHARS_MAX:
                break
            line = wider
        return line

    def _setting(self, text: str) -> str:
        name, _, kind = text.partition(":")
        value = self._settings.get(name, "")
        match kind:
            case "hexhyp":
                return value.replace(":", "-")
            case "hexraw":
                return value.replace(":", "")
            case _:
                return value

    def _count_fetch(self) -> None:
        self._fetches_left -= 1
        if self._fetches_left < 0:
            raise _Over(Exited(False, f"the script fetched over {FETCHES_MAX} files"))

    def _fail(self, why: str) -> bool:
        self._why = why
        return False


def _commands(words: list[str]) -> list[tuple[str, list[str]]]:
    """Split one line at ``||`` and ``&&``; each command with the operator before it.

    An empty command succeeds, so ``foo ||`` means that foo may fail.
    """
    found: list[tuple[str, list[str]]] = [("&&", [])]
    for word in words:
        if word in ("||", "&&"):
            found.append((word, []))
        else:
            found[-1][1].append(word)
    return found


def _options(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Take leading options off, with the values of those that have one."""
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        option = _LONG.get(rest[0], rest[0])
        rest.pop(0)
        options[option] = rest.pop(0) if option in _VALUED and rest else ""
    return options, rest


def _number(arguments: list[str]) -> int:
    text = arguments[0] if arguments else "0"
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1


def _bare(url: str) -> str:
    """Return a URL without its query, which may hold a capability."""
    return url.partition("?")[0]
