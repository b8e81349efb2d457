"""The agent's side of its protocol with the node: hello, next, progress.

It knows nothing of disks or steps. Rule: every attempt of a signed call carries a counter that
was never used before, so a replayed request is worthless and a repeated one is not mistaken for
a replay. Any node of the site may answer: base URLs are tried in turn, the last good one first.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from node.ramdisk.errors import HttpError, Refused, Unreachable
from node.ramdisk.hardware import Hardware
from node.ramdisk.http import Connection, split_base

AGENT_VERSION: Final = "1"
SIGN_CONTEXT: Final = b"rackmesh/agent/1\0"
ROUNDS: Final = 3
"""How often each base URL is tried for one call."""
BACKOFF_S: Final = (0.5, 1.0)
"""Pauses between the rounds of one call."""
CALL_STALL_S: Final = 15.0
PROGRESS_STALL_S: Final = 2.0
POLL_S: Final = (0.2, 60.0)
"""Bounds of the poll interval that a node may ask for."""
IDLE_S_DEFAULT: Final = 600.0
DETAIL_CHARS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Hello:
    """The node's answer to a hello."""

    session: str
    bound: bool
    poll_s: float
    idle_s: float
    detail: str
    do: str
    """What to do at once: ``reboot``, ``poweroff`` or nothing."""


def signed_message(session: str, counter: int, path: str, body: bytes) -> bytes:
    """Return the bytes that the session's Ed25519 key signs for one call (both sides)."""
    head = session.encode() + counter.to_bytes(8, "big") + path.encode()
    return SIGN_CONTEXT + head + b"\0" + body


class AgentClient:
    """Calls to the nodes of the site, with keys made for this boot only."""

    def __init__(
        self,
        hardware: Hardware,
        urls: Sequence[str],
        mac: str,
        capability: str | None,
        bind_address: str | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        assert urls, "the agent needs at least one base URL"
        self._hardware = hardware
        self._mac = mac
        self._capability = capability
        self._key = Ed25519PrivateKey.generate()
        self.seal_key = X25519PrivateKey.generate()
        self.session = ""
        self._counter = 0
        self._bases = [split_base(url.rstrip("/")) for url in urls]
        self._connections = [
            Connection(host, port, hardware.now, bind_address, tick)
            for host, port, _path in self._bases
        ]
        self._current = 0
        self.calls_failed = 0

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()

    def hello(self) -> Hello:
        """Say who we are; keep the session for later calls. Raises Refused or Unreachable."""
        inventory = self._hardware.inventory()
        nics = cast("list[dict[str, Any]]", inventory.get("nics") or [])
        macs = [self._mac, *(nic["mac"] for nic in nics if nic.get("mac"))]
        answer = self._call(
            "/agent/v1/hello",
            {
                "mac": self._mac,
                "macs": list(dict.fromkeys(macs)),
                "cap": self._capability,
                "key": self._key.public_key().public_bytes_raw().hex(),
                "seal": self.seal_key.public_key().public_bytes_raw().hex(),
                "agent": AGENT_VERSION,
                "inventory": inventory,
            },
            signed=False,
        )
        self.session = str(answer.get("session") or "")
        return Hello(
            session=self.session,
            bound=answer.get("bound") is True,
            poll_s=poll_seconds(answer),
            idle_s=_number(answer.get("idle_s"), IDLE_S_DEFAULT, 1.0, 86_400.0),
            detail=str(answer.get("detail") or "")[:DETAIL_CHARS_MAX],
            do=str(answer.get("do") or ""),
        )

    def next(self, done: Mapping[str, Any] | None) -> dict[str, Any]:
        """Report the finished step, ask for the next. Raises Refused or Unreachable."""
        return self._call("/agent/v1/next", {"done": done}, signed=True)

    def progress(self, step: str, done: int, total: int) -> dict[str, Any]:
        """Report progress once, quickly: no second round. Raises Refused or Unreachable."""
        body = {"step": step, "done": done, "total": total}
        return self._call("/agent/v1/progress", body, signed=True, rounds=1)

    def _call(
        self, path: str, body: Mapping[str, Any], *, signed: bool, rounds: int = ROUNDS
    ) -> dict[str, Any]:
        data = json.dumps(body, separators=(",", ":")).encode()
        stall_s = CALL_STALL_S if rounds > 1 else PROGRESS_STALL_S
        trouble = "no base URL"
        for turn in range(rounds):
            if turn:
                self._hardware.sleep(BACKOFF_S[min(turn, len(BACKOFF_S)) - 1])
            for _ in self._bases:
                try:
                    return self._once(path, data, signed, stall_s)
                except HttpError as exc:
                    trouble = str(exc)
                    self.calls_failed += 1
                    self._current = (self._current + 1) % len(self._bases)
        raise Unreachable(f"no node answered {path}: {trouble}")

    def _once(self, path: str, data: bytes, signed: bool, stall_s: float) -> dict[str, Any]:
        connection = self._connections[self._current]
        headers = {"Content-Type": "application/json"}
        if signed:
            self._counter += 1
            message = signed_message(self.session, self._counter, path, data)
            headers["X-Rackmesh-Session"] = self.session
            headers["X-Rackmesh-Counter"] = str(self._counter)
            headers["X-Rackmesh-Signature"] = self._key.sign(message).hex()
        target = self._bases[self._current][2].rstrip("/") + path
        status, _ = connection.request("POST", target, headers, data, stall_s=stall_s)
        answer = _answer(connection.read_all())
        if status == 200 and answer is not None:
            return answer
        detail = str((answer or {}).get("detail") or f"HTTP status {status}")
        if 400 <= status < 500:
            raise Refused(status, detail[:DETAIL_CHARS_MAX])
        raise HttpError(detail[:DETAIL_CHARS_MAX])


def poll_seconds(answer: Mapping[str, Any]) -> float:
    """Return the poll interval of an answer, held inside POLL_S."""
    return _number(answer.get("poll_s"), 2.0, *POLL_S)


def _number(value: Any, default: float, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return default
    if not math.isfinite(value):
        return default
    return min(max(float(value), least), most)


def _answer(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None
