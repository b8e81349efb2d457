"""Waiting and watching: jobs to their end with progress, logs as they come.

Rule: progress goes to standard error, as a bar on a terminal, else as one line per change of
step or ten per cent.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, Final

import click

from mesh.cli.context import Where, in_path, print_json
from mesh.cli.errors import FAILED, TIMEOUT, Failure

POLL_S: Final = 0.5
ENDED: Final = frozenset({"succeeded", "failed", "cancelled", "parked", "refused"})


def until(check: Callable[[], Any], wait_s: float, what: str) -> Any:
    """Return the first true answer of ``check``; fail with exit code 8 after ``wait_s``."""
    end = time.monotonic() + wait_s
    reason = "never"
    while True:
        try:
            answer = check()
            if answer:
                return answer
        except Failure as exc:
            reason = exc.message
        if time.monotonic() >= end:
            raise Failure(f"not {what} after {wait_s:.0f} s ({reason})", TIMEOUT)
        time.sleep(POLL_S)


def follow_job(where: Where, job: str, wait_s: float | None) -> dict[str, Any]:
    """Watch a job to its end; return it, or fail with its one-sentence error."""
    end = None if wait_s is None else time.monotonic() + wait_s
    shown = _Bars() if sys.stderr.isatty() else _Lines()
    with where.client() as client, shown:
        while True:
            item: dict[str, Any] = client.get(f"/jobs/{in_path(job)}")["item"]
            shown.update(item)
            if item["state"] in ENDED:
                break
            if end is not None and time.monotonic() >= end:
                raise Failure(
                    f"job {job} is still {item['state']} after {wait_s:.0f} s"
                    + (f": {item['waits_for']}" if item["waits_for"] else ""),
                    TIMEOUT,
                )
            time.sleep(POLL_S)
    if item["state"] != "succeeded":
        raise Failure(
            f"job {job} {item['state']}: {item['error'] or 'no reason given'}", FAILED
        )
    return item


def follow_verb(where: Where, order: str, wait_s: float | None) -> None:
    """Wait until an order about another job was carried out; fail when it was refused.

    Nothing stands under its id before the site has taken it up.
    """
    end = None if wait_s is None else time.monotonic() + wait_s
    while True:
        with where.client() as client:
            found = client.find(f"/jobs/{in_path(order)}")
        state = found["item"]["state"] if found else "not taken up"
        if state == "succeeded":
            return
        if state in ENDED:
            raise Failure(found["item"]["error"] or f"the order was {state}", FAILED)
        if end is not None and time.monotonic() >= end:
            raise Failure(f"the order is still {state} after {wait_s:.0f} s", TIMEOUT)
        time.sleep(POLL_S)


def follow_group(where: Where, as_json: bool, answer: Any, wait_s: float | None) -> None:
    """Print what became of a new group; watch it to its end unless ``wait_s`` is 0."""
    group = answer["item"]["group"]
    if wait_s == 0:
        if as_json:
            print_json(answer)
        else:
            click.echo(f"group {group}: {len(answer['item']['orders'])} jobs")
            click.echo(f"watch it: rackmesh group show {group}", err=True)
        return
    click.echo(f"group {group}", err=True)
    end = None if wait_s is None else time.monotonic() + wait_s
    said = ""
    while True:
        with where.client() as client:
            shown = client.get(f"/groups/{in_path(group)}")
        item = shown["item"]
        line = _standing(item)
        if line != said:
            click.echo(f"  {line}", err=True)
        said = line
        if item["over"] == item["total"]:
            break
        if end is not None and time.monotonic() >= end:
            raise Failure(f"group {group} is still {item['state']}: {line}", TIMEOUT)
        time.sleep(POLL_S)
    if as_json:
        print_json(shown)
    if item["state"] != "succeeded":
        raise Failure(f"group {group} {item['state']}: {item['error'] or line}", FAILED)
    if not as_json:
        click.echo(f"{item['kind']} of {item['total']} servers: succeeded")


def _standing(group: dict[str, Any]) -> str:
    states = ", ".join(f"{count} {state}" for state, count in group["states"].items())
    waits = "".join(f"; {w['jobs']}: {w['waits_for']}" for w in group["waits"][:3])
    return f"{group['over']} of {group['total']} over ({states}){waits}"


class _Lines:
    """One line per step and per ten per cent."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def update(self, job: dict[str, Any]) -> None:
        """Say what changed."""
        if job["waits_for"]:
            self._say(f"waits: {job['waits_for']}")
        for step in job["steps"]:
            if step["state"] == "running" and step["total"]:
                tenth = 10 * (step["done"] or 0) // step["total"]
                self._say(f"{step['name']}: {tenth * 10} %")
            elif step["state"] in ("running", "done", "failed"):
                self._say(f"{step['name']}: {step['state']}")

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            click.echo(f"  {line}", err=True)


class _Bars(_Lines):
    """A bar per step of the job."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._tasks: dict[str, Any] = {}
        self._progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def update(self, job: dict[str, Any]) -> None:
        """Move the bars."""
        for step in job["steps"]:
            if step["state"] in ("waiting", "skipped"):
                continue
            name = step["name"]
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=step["total"])
            done = step["state"] == "done"
            total = step["total"] or (1 if done else None)
            self._progress.update(
                self._tasks[name],
                total=total,
                completed=total if done else (step["done"] or 0),
                description=name if step["state"] != "failed" else f"{name} (failed)",
            )
