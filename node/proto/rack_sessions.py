"""Sessions of the virtual BMC (DMTF DSP0266 section 13.3.4, DSP2046 SessionService).

It knows no sockets and no clock: ``now`` is seconds. Rules: a token is shown once, in the
answer that makes it; a session ends by DELETE, after ``IDLE_S`` unused, or with its password.
"""

import hmac
import json
import secrets
from dataclasses import dataclass
from typing import Any, Final

SERVICE: Final = "/redfish/v1/SessionService"
SESSIONS: Final = f"{SERVICE}/Sessions"
SESSIONS_MAX: Final = 256
"""One service stands for all servers of the rack."""
IDLE_S: Final = 600.0


@dataclass(slots=True)
class _Session:
    token: str
    used: float


@dataclass(frozen=True, slots=True)
class SessionReply:
    """What to answer; ``token`` and ``location`` are headers of a new session."""

    status: int
    body: dict[str, Any] | None = None
    token: str | None = None
    location: str | None = None


class RackSessions:
    """All sessions of one virtual BMC."""

    def __init__(self) -> None:
        self._open: dict[str, _Session] = {}
        self._made = 0

    def authorised(self, token: str, now: float) -> bool:
        """Tell whether a token is one of an open session, and count that as use."""
        self._expire(now)
        for session in self._open.values():
            if hmac.compare_digest(session.token.encode(), token.encode()):
                session.used = now
                return True
        return False

    def end_all(self) -> None:
        """End all: the password is another one."""
        self._open.clear()

    def respond(
        self,
        method: str,
        path: str,
        body: bytes,
        login: tuple[str, str],
        authorised: bool,
        now: float,
    ) -> SessionReply | None:
        """Answer a request about sessions, None when it is about something else."""
        path = path.partition("?")[0].rstrip("/")
        if path not in (SERVICE, SESSIONS) and not path.startswith(f"{SESSIONS}/"):
            return None
        self._expire(now)
        if (method, path) == ("POST", SESSIONS):
            return self._make(body, login, now)
        if not authorised:
            return _refuse(401, "There is no valid session, user name or password.")
        if (method, path) == ("GET", SERVICE):
            shown: dict[str, Any] = {"Sessions": {"@odata.id": SESSIONS}}
            return SessionReply(200, {"@odata.id": SERVICE, "SessionTimeout": IDLE_S, **shown})
        if (method, path) == ("GET", SESSIONS):
            members = [{"@odata.id": f"{SESSIONS}/{name}"} for name in self._open]
            count = {"Members@odata.count": len(members)}
            return SessionReply(200, {"@odata.id": SESSIONS, "Members": members, **count})
        name = path.removeprefix(f"{SESSIONS}/")
        if name not in self._open:
            return _refuse(404, "There is no such session.")
        if method == "DELETE":
            del self._open[name]
            return SessionReply(204)
        if method == "GET":
            about = {"@odata.id": path, "Id": name, "UserName": login[0]}
            return SessionReply(200, about)
        return _refuse(405, "Sessions are only read, made and deleted.")

    def _make(self, body: bytes, login: tuple[str, str], now: float) -> SessionReply:
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            return _refuse(400, "The body is no JSON.")
        user = asked.get("UserName") if isinstance(asked, dict) else None
        password = asked.get("Password") if isinstance(asked, dict) else None
        if not isinstance(user, str) or not isinstance(password, str):
            return _refuse(400, "UserName and Password are needed.")
        given = json.dumps([user, password]).encode()
        if not hmac.compare_digest(given, json.dumps(list(login)).encode()):
            return _refuse(401, "The user name or password is wrong.")
        if len(self._open) >= SESSIONS_MAX:
            return _refuse(503, f"There are {SESSIONS_MAX} sessions open; end one first.")
        self._made += 1
        name, token = str(self._made), secrets.token_urlsafe(24)
        self._open[name] = _Session(token, now)
        location = f"{SESSIONS}/{name}"
        about = {"@odata.id": location, "Id": name, "UserName": login[0]}
        return SessionReply(201, about, token, location)

    def _expire(self, now: float) -> None:
        for name, session in list(self._open.items()):
            if now - session.used > IDLE_S:
                del self._open[name]


def _refuse(status: int, sentence: str) -> SessionReply:
    return SessionReply(
        status, {"error": {"code": "Base.1.0.GeneralError", "message": sentence}}
    )
