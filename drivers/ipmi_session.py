"""One RMCP+ session by pyghmi, on a socket of its own; it blocks, so it lives in a thread.

It knows pyghmi's simple session (no thread, no table shared between BMCs) and takes sending,
waiting and reading away from it: there a lost datagram is waited for without end, and garbage
raises. The rules: every wait ends by the caller's deadline or when `stopped` is set; what was
lost is sent again; what makes no sense is dropped and counted; IPMI 1.5 is not spoken.
"""

import secrets
import select
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from pyghmi.exceptions import IpmiException
from pyghmi.ipmi.private import simplesession

from drivers.api import always
from drivers.errors import (
    DeviceLied,
    DeviceRefused,
    DeviceUnreachable,
    DriverError,
    LoginRefused,
)
from drivers.proto.ipmi import Command

RESEND_S: Final = (1.0, 1.0, 2.0, 2.0, 4.0)
"""Silence before the first, second, ... repetition; the last counts for all that follow."""
SLICE_MS: Final = 250
"""Longest sleep between two looks at `stopped`."""
DATAGRAM_BYTES_MAX: Final = 3000
DATAGRAMS_MAX: Final = 64
"""Datagrams that are read between two looks at the clock."""
CLOSE_S: Final = 2.0

_CLOSE_SESSION: Final = Command("Close Session", 0x06, 0x3C)
_RMCP: Final = b"\x06\xff\x07"
_RMCPPLUS: Final = 6
_HEADER_BYTES: Final = 16
_ESTABLISHED: Final = "ESTABLISHED"


class LanSession(simplesession.Session):  # type: ignore[misc]  # pyghmi has no types
    """A login to one BMC; used by one thread at a time, whichever."""

    sessioncontext: str | None
    lastpayload: Any

    def __init__(
        self, sock: socket.socket, where: str, may_send: Callable[[], bool] = always
    ) -> None:
        """Take a connected UDP socket; nothing is sent before `log_in`."""
        self.where = where
        self.may_send = may_send
        self.stopped = False
        self.entered = False
        self.dropped = 0
        self.socket = sock
        self.logged = 0
        self._lan = sock
        self._until = 0.0
        self._resend_at = 0.0
        self._silences = 0
        sock.setblocking(False)

    def log_in(self, username: str, password: str, for_s: float) -> None:
        """Log in, or raise a DriverError with one sentence."""
        self._begin(for_s)
        try:
            super().__init__(bmc=self.where, userid=username, password=password)
        except IpmiException as exc:
            raise _login_failed(self.where, str(exc)) from exc
        finally:
            self.keepalive_sessions.pop(self, None)  # a table that would hold us for ever
            self._leave()

    def ask(self, command: Command, for_s: float) -> tuple[int, bytes]:
        """Send one command; return its completion code and data, or raise a DriverError."""
        self._begin(for_s)
        try:
            answer: Any = self.raw_command(
                netfn=command.netfn, command=command.number, data=tuple(command.data)
            )
        except IpmiException as exc:
            raise DeviceUnreachable(f"{self.where}: the session broke off") from exc
        finally:
            self._leave()
        return int(answer["code"]), bytes(answer["data"])

    def close(self) -> None:
        """Give the session back and close the socket: BMCs have few sessions."""
        session = int(self.sessionid).to_bytes(4, "little") if self.logged else b""
        try:
            if self.logged:
                end = Command(_CLOSE_SESSION.name, 0x06, _CLOSE_SESSION.number, session)
                self.ask(end, CLOSE_S)
        except DriverError:
            pass  # what was asked for is done; the BMC ends the session when idle
        finally:
            self.logged = 0
            self._lan.close()

    def abandon(self) -> None:
        """Let the thread that is in here find its own way out; the socket goes with it."""
        self.stopped = True
        if not self.entered:
            self._lan.close()

    def _begin(self, for_s: float) -> None:
        self.entered = True
        if self.stopped:
            self._leave()
            raise DeviceUnreachable(f"{self.where}: nobody waits for an answer any more")
        self._until = time.monotonic() + for_s
        self._for_s = for_s
        self._silences = 0

    def _leave(self) -> None:
        self.entered = False
        if self.stopped:
            self._lan.close()

    # -- in place of pyghmi's own ----------------------------------------------------------

    def _assignsocket(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, server: object = None
    ) -> socket.socket:
        return self._lan

    def _initsession(self) -> None:
        """Start a login anew, with ids that an answer to an earlier try does not fit."""
        tried = getattr(self, "attemptedhash", 256)
        super()._initsession()
        self.attemptedhash = tried
        self.localsid = secrets.randbelow(0xFFFFFF00) + 1

    def _get_session_challenge(self) -> None:
        raise DeviceRefused(f"{self.where}: it speaks only IPMI 1.5, which is not safe")

    def _xmit_packet(
        self, retry: bool = True, delay_xmit: float | None = None, timeout: float | None = None
    ) -> None:
        if self.sequencenumber:
            self.sequencenumber += 1
        pause = RESEND_S[min(self._silences, len(RESEND_S) - 1)]
        self._resend_at = time.monotonic() + pause
        if not self.may_send():
            raise DeviceRefused(f"{self.where}: not sent, another node may have the job by now")
        try:
            self._lan.send(self.netpacket)
        except BlockingIOError:
            pass  # as if lost on the way
        except OSError as exc:
            raise self._unreachable(exc) from exc

    def awaitresponse(self, retry: bool) -> None:
        """Wait for the answer to the command that was sent."""
        while retry and self.lastresponse is None and self.logged:
            self.wait_for_rsp()

    def wait_for_rsp(self, timeout: float | None = None, callout: bool = True) -> None:
        """Wait for a datagram or the time to send again; raises when all time is over."""
        now = time.monotonic()
        if self.stopped or now >= self._until:
            raise DeviceUnreachable(f"{self.where}: no answer within {self._for_s:g} s")
        if now >= self._resend_at:
            self._silences += 1
            self._again()
            return
        left_ms = int(1000 * (min(self._resend_at, self._until) - now)) + 1
        poll = select.poll()
        poll.register(self._lan, select.POLLIN)
        if poll.poll(min(left_ms, SLICE_MS)):
            self.process_pktqueue()

    def _again(self) -> None:
        """Send once more what got no answer, or log in anew where that is not allowed."""
        if self.sessioncontext == _ESTABLISHED:
            if not self.lastpayload:
                raise DeviceLied(f"{self.where}: an answer that makes no sense")
            self.hasretried = 1
            self.send_payload()
        elif self.sessioncontext == "OPENSESSION":
            self.lastpayload = None
            self._open_rmcpplus_request()
        elif self.sessioncontext is None and self.lastpayload:
            self.send_payload()
        else:  # a BMC takes each of the RAKP messages once
            self.lastpayload = None
            self._relog()

    def process_pktqueue(self) -> None:
        """Read what has come; garbage and what does not belong to this stage is dropped."""
        for _ in range(DATAGRAMS_MAX):
            try:
                data = bytearray(self._lan.recv(DATAGRAM_BYTES_MAX))
            except BlockingIOError:
                return
            except OSError as exc:
                raise self._unreachable(exc) from exc
            if not self._belongs(data):
                self.dropped += 1
                continue
            try:
                self._handle_ipmi_packet(data)
            except (DriverError, IpmiException):
                raise
            except Exception:  # whatever the bytes of a stranger make pyghmi raise
                self.dropped += 1

    def _belongs(self, data: bytearray) -> bool:
        """Tell whether a datagram may be looked at in this stage of the session."""
        if len(data) < _HEADER_BYTES or bytes((data[0], data[2], data[3])) != _RMCP:
            return False
        if self.sessioncontext is None:  # only the capabilities are asked outside a session
            return data[4] != _RMCPPLUS
        handshake = data[5] & 0x3F >= 0x10
        return data[4] == _RMCPPLUS and handshake != (self.sessioncontext == _ESTABLISHED)

    def _unreachable(self, exc: OSError) -> DeviceUnreachable:
        if isinstance(exc, ConnectionRefusedError):
            return DeviceUnreachable(f"{self.where}: nothing answers at this port (UDP)")
        return DeviceUnreachable(f"{self.where}: cannot be reached ({exc.strerror or exc})")


def _login_failed(where: str, said: str) -> DriverError:
    """Return the error for pyghmi's words about a login."""
    words = said.lower()
    if "incorrect password" in words:
        return LoginRefused(f"{where}: the password was refused")
    if "unauthorized name" in words or "invalid username" in words:
        return LoginRefused(f"{where}: the user name was refused")
    if "insufficient resources" in words:
        return DeviceUnreachable(f"{where}: it has no free session; unused ones end by idling")
    if "privelege" in words or "privilege" in words or "role" in words:
        return DeviceRefused(f"{where}: this user may not switch the power")
    return DeviceRefused(f"{where}: the login was refused ({said[:100] or 'no reason given'})")
