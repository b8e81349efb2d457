"""The ring of recent events behind server-sent events, and their text form.

It knows nothing of who listens. Rule: an id names the run of the hub and a number in it; a
listener that comes back with an id gets exactly what it missed, or one ``reset`` (re-read
everything) when the ring no longer holds it or the id is from another run.
"""

import json
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

RING_EVENTS_MAX: Final = 1024
PING: Final = b": ping\n\n"


@dataclass(frozen=True, slots=True)
class Event:
    """Something changed: ``kind`` is a noun of the API, ``data`` says which one."""

    number: int
    kind: str
    data: dict[str, Any]


class EventRing:
    """The newest events of this run."""

    def __init__(self, run: str) -> None:
        assert run.isalnum()
        self.run = run
        self.newest = 0
        self._events: deque[Event] = deque(maxlen=RING_EVENTS_MAX)

    def add(self, kind: str, data: dict[str, Any]) -> Event:
        """Append an event; the oldest falls out when the ring is full."""
        assert kind.isidentifier()
        self.newest += 1
        event = Event(self.newest, kind, data)
        self._events.append(event)
        return event

    def after(self, number: int) -> list[Event] | None:
        """Return the events after a number, or None when some of them are gone."""
        if number > self.newest:
            return None
        oldest = self._events[0].number if self._events else self.newest + 1
        if number < oldest - 1:
            return None
        return [event for event in self._events if event.number > number]

    def resume(self, last_event_id: str | None) -> int | None:
        """Return the number in a Last-Event-ID, or None when it means nothing to this run."""
        if last_event_id is None:
            return None
        run, _, number = last_event_id.partition("-")
        if run != self.run or not (number.isascii() and number.isdigit()) or len(number) > 18:
            return None
        return int(number)

    def text(self, event: Event) -> bytes:
        """Return an event as it goes over the wire (WHATWG HTML, section 9.2)."""
        data = json.dumps(event.data, separators=(",", ":"), sort_keys=True)
        return f"id: {self.run}-{event.number}\nevent: {event.kind}\ndata: {data}\n\n".encode()

    def reset(self) -> bytes:
        """Return the event that tells a listener to read everything again."""
        return f"id: {self.run}-{self.newest}\nevent: reset\ndata: {{}}\n\n".encode()
