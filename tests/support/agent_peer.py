"""A node as the ramdisk agent sees it: hello, next, progress, assets, phone-in, from a plan.

It knows the protocol from the contract alone and checks every signature and counter itself; it
has no jobs, no store and no capability rules. ``python -m tests.support.agent_peer CONFIG``
runs it as a program for virtual machines; CONFIG is JSON as in ``peer_from_config``.
"""

import base64
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import h11
import msgpack
import trio
from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

CHUNK_BYTES = 1 << 20


@dataclass
class PeerAsset:
    """An image with the manifest that a node would serve."""

    data: bytes
    served: bytes
    core: bytes
    asset: str

    @classmethod
    def of(cls, data: bytes) -> "PeerAsset":
        chunks = [
            blake3(data[at : at + CHUNK_BYTES]).digest()
            for at in range(0, len(data), CHUNK_BYTES)
        ]
        core = msgpack.packb(
            {
                "chunk_bytes": CHUNK_BYTES,
                "members": [["", len(data), chunks]],
                "sha256": hashlib.sha256(data).hexdigest(),
                "v": 1,
            }
        )
        return cls(data, data, core, f"b3:{blake3(core).hexdigest()}")

    def manifest(self) -> bytes:
        body = {"asset": self.asset, "core": base64.b64encode(self.core).decode()}
        return json.dumps(body).encode()


@dataclass
class AgentPeer:
    """The state of the peer; ``serve`` is its shell."""

    plan: list[dict[str, Any]] = field(default_factory=list)
    assets: dict[str, PeerAsset] = field(default_factory=dict)
    bound: bool = True
    poll_s: float = 0.2
    idle_s: float = 600.0
    hello_do: str | None = None
    event: Callable[[str, Any], None] = lambda _name, _value: None
    hellos: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    progress: list[dict[str, Any]] = field(default_factory=list)
    phone_ins: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    abort_at: int | None = None
    """Abort the step whose progress reaches so many bytes."""
    forget_sessions_at: int | None = None
    """Forget all sessions once, at the progress message of this number."""
    unbound_hellos: frozenset[int] = frozenset()
    """Hellos, counted from 1, that bind no session."""
    lose_answers: int = 0
    """Close the connection instead of answering so many ``next`` calls."""
    piece_delay_s: float = 0.0
    """Wait so long before each 64 KiB of an answer."""
    seen_ranges: list[tuple[int, int]] = field(default_factory=list)
    _sessions: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection until it ends."""
        connection = h11.Connection(h11.SERVER)
        async with stream:
            try:
                while connection.our_state is not h11.MUST_CLOSE:
                    answer = await self._one(connection, stream)
                    if answer is None:
                        return
                    status, body, headers = answer
                    head = [("Content-Length", str(len(body))), *headers]
                    response = h11.Response(status_code=status, headers=head)
                    await stream.send_all(connection.send(response) or b"")
                    for at in range(0, len(body), 65536):
                        await trio.sleep(self.piece_delay_s)
                        part = h11.Data(data=body[at : at + 65536])
                        await stream.send_all(connection.send(part) or b"")
                    connection.send(h11.EndOfMessage())
                    if connection.our_state is h11.MUST_CLOSE:
                        return
                    connection.start_next_cycle()
            except (h11.RemoteProtocolError, trio.BrokenResourceError):
                return

    async def _one(self, connection: h11.Connection, stream: trio.SocketStream) -> Any:
        request, body = None, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return None
        assert request is not None
        path = request.target.decode()
        headers = {name.decode(): value.decode() for name, value in request.headers}
        return self._route(path, headers, body)

    def _route(self, path: str, headers: dict[str, str], body: bytes) -> Any:
        if path == "/agent/v1/hello":
            return _json(*self._hello(json.loads(body)))
        if path in ("/agent/v1/next", "/agent/v1/progress"):
            trouble = self._check(path, headers, body)
            if trouble:
                self.refused.append(trouble)
                return _json(403, {"detail": trouble})
            session = self._sessions[headers["x-rackmesh-session"]]
            if path.endswith("/progress"):
                return _json(*self._progress(json.loads(body)))
            return self._next(session, json.loads(body))
        if path.startswith("/assets/"):
            return self._asset(path, headers)
        if path.startswith("/phone/v1/"):
            return self._phone(path, body)
        return _json(404, {"detail": "nothing here"})

    def _hello(self, hello: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.hellos.append(hello)
        self.event("hello", hello)
        bound = self.bound and len(self.hellos) not in self.unbound_hellos
        session = f"session-{len(self.hellos)}" if bound else ""
        if bound:
            self._sessions[session] = {"id": session, "counter": 0, **hello}
        answer = {"session": session, "bound": bound, "poll_s": self.poll_s}
        if self.hello_do:
            answer["do"] = self.hello_do
        return 200, {**answer, "idle_s": self.idle_s, "detail": "from the test"}

    def _check(self, path: str, headers: dict[str, str], body: bytes) -> str | None:
        session = self._sessions.get(headers.get("x-rackmesh-session", ""))
        if session is None:
            return "unknown session"
        counter = int(headers["x-rackmesh-counter"])
        if counter <= session["counter"]:
            return "a counter came twice"
        message = b"rackmesh/agent/1\0" + session["id"].encode()
        message += counter.to_bytes(8, "big") + path.encode() + b"\0" + body
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(session["key"]))
        try:
            key.verify(bytes.fromhex(headers["x-rackmesh-signature"]), message)
        except InvalidSignature:
            return "wrong signature"
        session["counter"] = counter
        return None

    def _progress(self, report: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.progress.append(report)
        self.event("progress", report)
        if len(self.progress) == self.forget_sessions_at:
            self._sessions.clear()
        if self.abort_at is not None and report["done"] >= self.abort_at:
            return 200, {"abort": "the job was cancelled"}
        return 200, {}

    def _next(self, session: dict[str, Any], body: dict[str, Any]) -> Any:
        done = body["done"]
        if done is not None and done["step"] not in [one["step"] for one in self.results]:
            self.results.append(done)
            self.event("done", done)
        if self.lose_answers:
            self.lose_answers -= 1
            return None
        if len(self.results) >= len(self.plan):
            return _json(200, {"step": None, "poll_s": self.poll_s})
        step = dict(self.plan[len(self.results)])
        step.setdefault("id", f"step-{len(self.results)}")
        if step["do"] == "first_boot":
            step["sealed"] = _seal(session, step)
        return _json(200, {"step": step, "poll_s": self.poll_s})

    def _asset(self, path: str, headers: dict[str, str]) -> Any:
        _, _, asset_id, *rest = path.split("/")
        asset = self.assets.get(asset_id)
        if asset is None:
            return _json(404, {"detail": "no such asset"})
        if rest == ["manifest"]:
            return 200, asset.manifest(), []
        if "range" not in headers:
            return 200, asset.served, []
        first, last = map(int, headers["range"].removeprefix("bytes=").split("-"))
        self.seen_ranges.append((first, last))
        content_range = f"bytes {first}-{last}/{len(asset.served)}"
        return 206, asset.served[first : last + 1], [("Content-Range", content_range)]

    def _phone(self, path: str, body: bytes) -> Any:
        text = body.decode()
        fields = {key: value[0] for key, value in parse_qs(text).items()}
        self.phone_ins.append({"path": path, **fields})
        self.event("phone-in", self.phone_ins[-1])
        return _json(200, {})


def _json(status: int, body: dict[str, Any]) -> tuple[int, bytes, list[Any]]:
    return status, json.dumps(body).encode(), [("Content-Type", "application/json")]


def _seal(session: dict[str, Any], step: dict[str, Any]) -> str:
    plain = {"user_data": step.pop("user_data"), "meta_data": step.pop("meta_data")}
    key = X25519PublicKey.from_public_bytes(bytes.fromhex(session["seal"]))
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    info = b"rackmesh/first-boot/1\0" + session["id"].encode()
    return base64.b64encode(suite.encrypt(json.dumps(plain).encode(), key, info=info)).decode()


def peer_from_config(config: dict[str, Any]) -> AgentPeer:
    """Build a peer from {"url", "image": path|None, "plan": [...]}.

    A ``write_image`` step of the plan gets asset, size and urls of that image.
    """
    peer = AgentPeer(plan=config["plan"], piece_delay_s=config.get("piece_delay_s", 0.0))
    if config.get("image"):
        asset = PeerAsset.of(Path(config["image"]).read_bytes())
        peer.assets[asset.asset] = asset
        for step in peer.plan:
            if step["do"] == "write_image":
                step["urls"] = [f"{config['url']}/assets/{asset.asset}"]
                step.update(asset=asset.asset, size=len(asset.data))
            elif step["do"] == "first_boot":
                step["image_bytes"] = len(asset.data)
    return peer


async def _run(config: dict[str, Any]) -> None:
    def event(name: str, value: Any) -> None:
        print(json.dumps({"event": name, "value": value}), flush=True)

    peer = peer_from_config(config)
    peer.event = event
    host, port = config["listen"]
    event("listening", [host, port])
    await trio.serve_tcp(peer.serve, port, host=host)


if __name__ == "__main__":
    trio.run(_run, json.loads(sys.argv[1]))
