"""The serial console of a server in a terminal, or between standard input and output.

It knows terminals and escapes, no BMC. Rules: a terminal is given back as it was, whatever
happens; what the server writes goes to standard output as it comes, everything that we say to
standard error; the end of a console that somebody else ended is not a success.
"""

import json
import math
import os
import sys
import termios
import tty
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import click

from mesh.cli.context import Where, in_path, options, print_json
from mesh.cli.errors import BY_CODE, FAILED, Failure

READ_BYTES: Final = 4096


@click.command("console")
@click.argument("server")
@click.option("--read-only", is_flag=True, help="Only watch.")
@click.option("--take", is_flag=True, help="Write, though somebody else does.")
@click.option(
    "--steal", is_flag=True,
    help="Take the console away from another client of the BMC, and from who writes.",
)  # fmt: skip
@click.option(
    "--linger", "linger_s", type=click.FloatRange(min=0), default=3.0, show_default=True,
    help="When the input has ended and is no terminal: stop after so many seconds of silence.",
)  # fmt: skip
@options
def console(
    where: Where, as_json: bool, server: str, read_only: bool, take: bool, steal: bool,
    linger_s: float,
) -> None:  # fmt: skip
    """Watch and use the serial console of SERVER; ~. at the start of a line ends it.

    Without a terminal, standard input is typed and standard output is what the server writes.
    With --json a document at the end says how it ended.
    """
    import trio

    from mesh.rest.client import ApiError

    if read_only and (take or steal):
        raise Failure("--read-only goes neither with --take nor with --steal", 2)
    query = {"write": not read_only, "take": take or steal, "steal": steal}
    path = f"/servers/{in_path(server)}/console"
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    session = _Session(server, terminal, linger_s, read_only)
    try:
        with _raw(terminal):
            trio.run(session.run, where.target(), path, query)
    except ApiError as exc:
        raise Failure(str(exc), BY_CODE.get(exc.code, FAILED)) from exc
    if as_json:
        item = {"server": server, "ended": session.ended, "bytes": session.written}
        print_json({"schema": "rackmesh/console/1", "item": item}, err=True)
    if session.ended is not None:
        raise Failure(session.ended, BY_CODE.get(session.code, FAILED))


class _Session:
    """One console, from its opening to its end."""

    def __init__(self, server: str, terminal: bool, linger_s: float, read_only: bool) -> None:
        self.ended: str | None = None
        """Why it ended without our wish."""
        self.code = ""
        self.written = 0
        self._server, self._terminal = server, terminal
        self._linger_s, self._read_only = linger_s, read_only
        self._said: tuple[Any, ...] = ()
        self._until = math.inf

    async def run(self, target: Any, path: str, query: dict[str, bool]) -> None:
        """Open the console and carry characters until one side ends."""
        import trio

        from mesh.rest.sockets import open_api_socket

        self._socket = await open_api_socket(target, path, **query)
        try:
            async with trio.open_nursery() as nursery:
                self._whole = nursery.cancel_scope
                self._ready = trio.Event()
                nursery.start_soon(self._type)
                await self._show()
                nursery.cancel_scope.cancel()
        finally:
            await self._socket.aclose()

    async def _show(self) -> None:
        import trio

        from mesh.console_wire import control
        from mesh.errors import RemoteError

        while True:
            message: bytes | str | None = None
            with trio.CancelScope(deadline=self._until) as self._patience:
                try:
                    message = await self._socket.receive()
                except RemoteError as exc:
                    self.ended, self.code = f"the console broke off: {exc}", "unreachable"
                    return
            if self._patience.cancelled_caught:
                return
            if message is None:
                self.ended = "the console was closed"
                return
            if isinstance(message, bytes):
                self.written += len(message)
                _out(message)
                if self._until != math.inf:
                    self._until = trio.current_time() + self._linger_s
            elif self._heard(control(message)):
                return

    def _heard(self, status: dict[str, Any]) -> bool:
        """Say what is new; True when the console is over."""
        state, text = status.get("state"), str(status.get("text") or "")
        if state == "ended":
            self.ended = text or "the console has ended"
            self.code = str(status.get("code") or "")
            return True
        if state == "open":
            self._ready.set()
        writer = "you write" if status.get("you_write") else (
            f"{status.get('writer')} writes" if status.get("writer") else "nobody writes"
        )  # fmt: skip
        news = (state, text, writer)
        if news == self._said:
            return False
        self._said = news
        said = "; ".join(part for part in (f"console of {self._server} is {state}", writer,
                                           text) if part)  # fmt: skip
        ending = "; ~? for help" if self._terminal and state == "open" and not text else ""
        self._note(said + ending)
        return False

    async def _type(self) -> None:
        """Send what is typed until the input ends."""
        import trio

        from mesh.errors import RemoteError
        from mesh.proto.escape import Act, Escapes

        await self._ready.wait()
        escapes = Escapes()
        try:
            while data := await _read(self._terminal):
                for part in escapes.feed(data) if self._terminal else [data]:
                    if isinstance(part, Act):
                        await self._act(part.what)
                    elif not self._read_only:
                        await self._socket.send(part)
        except RemoteError:
            return  # who shows hears of it
        except OSError:
            pass  # the terminal has gone
        if self._terminal:
            self._whole.cancel()
        else:
            self._until = self._patience.deadline = trio.current_time() + self._linger_s

    async def _act(self, what: str) -> None:
        from mesh.proto.escape import HELP

        if what == "quit":
            self._whole.cancel()
        elif what == "help":
            self._note(HELP)
        elif what == "write" and self._read_only:
            self._note("this session only reads")
        else:
            do = "take" if what == "write" else what
            await self._socket.send(json.dumps({"do": do}))

    def _note(self, text: str) -> None:
        end = "\r\n" if self._terminal else "\n"
        clean = "".join(c if c.isprintable() or c in "\r\n" else "?" for c in text)
        click.echo(f"{end if self._terminal else ''}[{clean}]{end}", err=True, nl=False)


async def _read(terminal: bool) -> bytes:
    import trio

    fd = sys.stdin.fileno()
    if terminal:
        await trio.lowlevel.wait_readable(fd)
        return os.read(fd, READ_BYTES)

    def read() -> bytes:
        return os.read(fd, READ_BYTES)

    return bytes(await trio.to_thread.run_sync(read, abandon_on_cancel=True))


def _out(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@contextmanager
def _raw(terminal: bool) -> Generator[None]:
    """Pass every key on, as long as it lasts."""
    if not terminal:
        yield
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
