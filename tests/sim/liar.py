"""A member that lies: it spoils what its correct self would have sent.

It knows no world but the chance it is given. It has its own keys and nobody else's: it signs
what it likes as itself, sends forged and old things, names tables and scopes that are not its
to write, claims heads that nobody has, and floods. What it may do to a correct peer is bounded:
at most ``STRIKES_MAX`` deltas that do not hold, then the link is gone.
"""

import random
from collections import Counter
from dataclasses import replace
from typing import Any, Final

from mesh.proto.intake import Delta
from mesh.proto.sets import ROW_BYTES_MAX, Entry, SignedHead, pack_head
from mesh.proto.sync_wire import Deltas, body_of, parse
from tests.support.members import plain_sign

KEPT_MAX: Final = 64
LIES: Final = 0.15
"""Of its frames, while it lies."""
DELTA_LIES: Final = 0.9


class Liar:
    """Spoils frames."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name, self.rng = name, rng
        self.counters: Counter[str] = Counter()
        self.lying = True
        self._old: list[Any] = []

    def spoil(self, kind: str, target: str, body: Any) -> Any:
        """Return what goes out in place of a frame."""
        rng = self.rng
        if not self.lying or not isinstance(body, dict):
            return body
        if rng.random() > (DELTA_LIES if body.get("t") == "delta" else LIES):
            return body
        if kind == "receipt":
            self.counters["receipts"] += 1
            return {"sets": [["fleet", 1 << 60, 1 << 60]]}
        self._old = [*self._old, body][-KEPT_MAX:]
        match body.get("t"):
            case "delta":
                return self._delta(body)
            case "root" | "root?":
                return {**body, "g": rng.randbytes(16)} if rng.random() < 0.3 else body
            case "announce" | "heads":
                return self._heads(body)
            case "groups":
                return self._groups(body)
            case _:
                self.counters["replays"] += 1
                return rng.choice(self._old)

    def _heads(self, body: Any) -> Any:
        """Claim heads that nobody has, of anybody."""
        self.counters["claims"] += 1
        ahead = [[a, s, e, q + self.rng.randrange(1, 99), r] for a, s, e, q, r in body["heads"]]
        foreign = [
            ["hub1", "hubs", 1 << 50, 9, bytes(16)],
            [self.name, "hubs", 1, 1, bytes(16)],
        ]
        return {**body, "heads": [*ahead, *foreign][:256]}

    def _groups(self, body: Any) -> Any:
        self.counters["claims"] += 1
        return {
            **body,
            "groups": [[k, m, [seq + 1 for seq in s]] for k, m, s in body["groups"]],
        }

    def _delta(self, body: Any) -> Any:
        message = parse(body)
        assert isinstance(message, Deltas)
        parts = tuple(self._part(part) for part in message.parts)
        return body_of(Deltas(message.n, parts))

    def _part(self, part: Delta) -> Delta:
        how = self.rng.choice(("signature", "rows", "huge", "table", "head", "order", "fork"))
        self.counters[how] += 1
        signed, rows = part.signed, list(part.entries)
        head = signed.head
        last = rows[-1] if rows else Entry("server", "k", part.since + 1, 1, b"\x80")
        match how:
            case "signature":  # a head that its author never signed
                forged = replace(head, floor=head.floor + 1)
                signed = SignedHead(forged, pack_head(forged), self.rng.randbytes(32))
            case "rows":  # the body of somebody's row is another one
                rows = [*rows[:-1], last._replace(body=b"\x81\xa1v\x07")]
            case "huge":
                rows = [
                    *rows[:-1],
                    last._replace(body=b"\x81\xa1v\xc5\xff\xf0" + bytes(ROW_BYTES_MAX - 16)),
                ]
            case "table":  # a table that only hubs write, under its own signature
                rows = [*rows[:-1], last._replace(table="reference")]
                signed = self._signed(replace(head, author=self.name))
            case "head":  # its own set, far ahead, with a root over nothing
                signed = self._signed(
                    replace(head, author=self.name, seq=head.seq + 50, root=bytes(16))
                )
            case "order":
                rows.reverse()
            case "fork":  # two heads of its own for one point
                signed = self._signed(replace(head, author=self.name, floor=head.floor + 1))
        return Delta(signed, part.since, tuple(rows), part.final)

    def _signed(self, head: Any) -> SignedHead:
        body = pack_head(head)
        return SignedHead(head, body, plain_sign(self.name)(body))
