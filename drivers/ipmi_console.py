"""A server's serial console over IPMI (Serial over LAN): pyghmi's frames, our own channel.

Decides nothing: characters, acknowledgement and loss stand in `drivers.proto.sol`. The rules: a
thread is held for the login and for opening and closing, never while the console is open, since
a packet is sealed in microseconds; what another client has taken over is not closed by us.
"""

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import trio

from drivers.api import BmcCredentials, BmcLimits
from drivers.errors import DeviceLied, DeviceRefused, DeviceUnreachable, DriverError
from drivers.ipmi import IpmiBmc, checked_address
from drivers.ipmi_session import CLOSE_S, LanSession
from drivers.proto import ipmi as ipmi_core
from drivers.proto import sol as core

INBOUND_BYTES_MAX: Final = 64 << 10
"""What a slow reader may leave; then nothing more is read, and the BMC has to wait."""
INBOX_MAX: Final = 64
"""Payloads of one look at the socket."""
STEAL_TRIES: Final = 4
STEAL_WAIT_S: Final = 0.5
FLUSH_S: Final = 2.0
"""How long closing waits for characters that the server has not taken."""


class SolSession(LanSession):
    """A login that carries a console beside commands."""

    def begin_sol(self) -> None:
        """Keep the payloads of the console from now on."""
        self.inbox: list[bytes] = []
        self.answers: list[tuple[int, bytes]] = []
        self.sol_handler: Callable[[Any], None] | None = self._on_sol

    def _on_sol(self, payload: Any) -> None:
        if len(self.inbox) < INBOX_MAX:
            self.inbox.append(bytes(payload))
        else:
            self.dropped += 1

    def send_sol(self, payload: bytes) -> None:
        """Seal and send one payload of the console; never blocks."""
        self.send_payload(bytearray(payload), payload_type=1, retry=False)

    def ask_nowait(self, command: ipmi_core.Command) -> None:
        """Send a command whose answer will stand in ``answers``."""
        self.ipmicallback = self._on_answer
        self._send_ipmi_net_payload(
            netfn=command.netfn, command=command.number, data=tuple(command.data), retry=False
        )

    def _on_answer(self, answer: Any) -> None:
        if len(self.answers) < INBOX_MAX:
            self.answers.append((int(answer["code"]), bytes(answer["data"])))

    def end_sol(self) -> None:
        """Let go of the console: what still comes is dropped."""
        self.sol_handler = None

    async def wait_readable(self) -> None:
        """Wait for a datagram."""
        await trio.lowlevel.wait_readable(self._lan)


class SolBmc(IpmiBmc):
    """The BMC of one console."""

    sol: SolSession | None = None
    """The session that has the console open."""

    async def activate(self, *, steal: bool) -> tuple[SolSession, int]:
        """Log in and open the console; take it from another client only when told to.

        Returns the session and the characters that a packet may have.
        """
        code, data = await self._ask(core.ACTIVATE)
        if code == core.ACTIVE_ELSEWHERE and not steal and await self._is_ours():
            steal = True  # the answer to our first order was lost
        for _ in range(STEAL_TRIES if steal else 0):
            if code != core.ACTIVE_ELSEWHERE:
                break
            await self._ask(core.DEACTIVATE)
            code, data = await self._ask(core.ACTIVATE)
            if code == core.ACTIVE_ELSEWHERE:
                await trio.sleep(STEAL_WAIT_S)
        if (why := core.why_refused(code)) is not None:
            raise DeviceRefused(f"{self.url}: {why}")
        session = self._session
        assert isinstance(session, SolSession)
        self.sol = session
        chunk_bytes = self._read(core.parse_activated, data)
        session.begin_sol()
        return session, chunk_bytes

    async def _is_ours(self) -> bool:
        owner = core.parse_owner(*await self._ask(core.OWNER))
        return isinstance(self._session, SolSession) and owner == self._session.sessionid

    async def end(self, *, taken_over: bool) -> None:
        """Close the console, unless another has it now, and the session."""
        sol = self.sol
        if sol is not None and sol is self._session:
            sol.end_sol()
            if not taken_over:
                try:
                    await self._in_thread(
                        sol, lambda: sol.ask(core.DEACTIVATE, CLOSE_S), CLOSE_S
                    )
                except DriverError:
                    pass  # the BMC ends it with the session, by idling
        await self.close()


class SolConsole:
    """One open console; one reader, any number of writers."""

    def __init__(
        self,
        url: str,
        session: SolSession,
        channel: core.SolChannel,
        say: Callable[[str], None],
    ) -> None:
        self.url = url
        self.taken_over = False
        self._session = session
        self._channel = channel
        self._say = say
        self._inbound = bytearray()
        self._ended: DriverError | None = None
        self._wait = trio.CancelScope()
        self._changed = trio.Event()

    async def receive(self) -> bytes:
        """Return what the server wrote, at least one byte; a DriverError ends the console."""
        while not self._inbound:
            if self._ended is not None:
                raise self._ended
            await self._changed.wait()
        data = bytes(self._inbound)
        self._inbound.clear()
        self._wake()
        return data

    async def send(self, data: bytes) -> None:
        """Type characters; returns when they are queued."""
        while data:
            if self._ended is not None:
                raise self._ended
            room = min(self._channel.room, len(data))
            if not room:
                await self._changed.wait()
                continue
            self._do(partial(self._channel.send, data[:room], trio.current_time()))
            data = data[room:]

    async def send_break(self) -> None:
        """Send a break."""
        if self._ended is not None:
            raise self._ended
        self._do(lambda: self._channel.send_break(trio.current_time()))

    async def flush(self) -> None:
        """Wait until the server has taken what was typed, or the console has ended."""
        while self._ended is None and not self._channel.idle:
            await self._changed.wait()

    async def run(self) -> None:
        """Carry packets until the console ends."""
        self._do(lambda: self._channel.start(trio.current_time()))
        while self._ended is None:
            deadline = self._channel.deadline
            with trio.CancelScope(
                deadline=math.inf if deadline is None else deadline
            ) as self._wait:
                if len(self._inbound) >= INBOUND_BYTES_MAX:
                    await self._changed.wait()
                else:
                    await self._session.wait_readable()
            self._do(self._look)

    def _look(self) -> list[core.Effect]:
        """Read what has come, and let time pass."""
        session, now = self._session, trio.current_time()
        effects: list[core.Effect] = []
        if len(self._inbound) < INBOUND_BYTES_MAX:
            session.process_pktqueue()
        payloads, session.inbox = session.inbox, []
        for payload in payloads:
            effects += self._channel.on_payload(payload, now)
        answers, session.answers = session.answers, []
        for code, data in answers:
            effects += self._channel.on_owner(code, data, now)
        if self._channel.deadline is not None and now >= self._channel.deadline:
            effects += self._channel.on_timer(now)
        return effects

    def _do(self, act: Callable[[], list[core.Effect]]) -> None:
        """Carry out effects; whatever fails ends the console."""
        if self._ended is not None:
            return
        try:
            for effect in act():
                self._carry_out(effect)
        except DriverError as exc:
            self._ended = exc
        except Exception as exc:  # whatever the bytes of a stranger make pyghmi raise
            self._ended = DeviceLied(f"{self.url}: its console makes no sense ({exc!r:.100})")
        self._wake()

    def _carry_out(self, effect: core.Effect) -> None:
        match effect:
            case core.Send(payload):
                self._session.send_sol(payload)
            case core.AskOwner():
                self._session.ask_nowait(core.OWNER)
            case core.Received(data):
                self._inbound += data
            case core.Notice(text):
                self._say(text)
            case core.Ended(text, lost):
                self.taken_over = not lost
                kind = DeviceUnreachable if lost else DeviceRefused
                self._ended = kind(f"{self.url}: {text}")

    def _wake(self) -> None:
        deadline = self._channel.deadline
        self._wait.deadline = math.inf if deadline is None else deadline
        if self._ended is not None:
            self._wait.cancel()
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def open_sol(
    url: str,
    credentials: BmcCredentials,
    *,
    steal: bool,
    local_address: str | None,
    limits: BmcLimits,
    say: Callable[[str], None],
) -> AsyncGenerator[SolConsole]:
    """Open the console of one address; closed at the end, unless another has taken it."""
    address = checked_address(url, credentials)
    bmc = SolBmc(address, credentials, limits, local_address, SolSession)
    taken_over = False
    try:
        session, chunk_bytes = await bmc.activate(steal=steal)
        channel = core.SolChannel(chunk_bytes, int(session.sessionid))
        console = SolConsole(bmc.url, session, channel, say)
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(console.run)
            try:
                yield console
            except Exception as exc:  # not to be wrapped in a group by the nursery
                failure = exc
            finally:
                with trio.move_on_after(FLUSH_S, shield=True):
                    await console.flush()
                taken_over = console.taken_over
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
    finally:
        with trio.move_on_after(2 * CLOSE_S, shield=True):
            await bmc.end(taken_over=taken_over)
