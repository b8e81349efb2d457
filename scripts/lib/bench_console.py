"""The console in a real browser at a hub with thousands of servers (``scripts/bench/console``).

The servers are rows that a real node has signed and replicated; nothing is written into the hub
itself. An event's time begins with the ``ended_ms`` that the node puts into the row of a job
(before it commits it) and ends after the frame that painted the word. The peer of the list is
the same page as a file behind Python's own file server, without TLS: what no server undercuts.
"""

import argparse
import functools
import http.server
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from chromium import CHROMIUM, Visit, chromium, sign_in, visit
from demo_processes import DemoFailed, say, wait_for

from mesh.host.clock import SystemClock
from mesh.identity import load_or_make_identity
from mesh.proto import tables
from mesh.proto.ids import uuid7
from mesh.proto.sets import HEAD_KIND, HEAD_N
from mesh.register_store import read_register
from mesh.store import MeshStore, Tx
from node.joining import KEYS, REGISTER
from tests.support.fleet import IMAGE, Fleet, fleet

SERVERS: Final = 5000
EVENTS: Final = 40
ROUNDS: Final = 30
GROUP: Final = 250
"""Rows of one commit while the servers are written."""
SITE: Final = "bulk"
STATES: Final = ("active", "active", "active", "available", "deploying failed")
LISTS: Final = ("/servers", "/servers?group=state", "/servers?filter=state:!active+cores")
WAIT_S: Final = 60.0
SEEN: Final = """() => {
  window.seen = {};
  const look = () => {
    for (const row of document.querySelectorAll("tr[data-job]")) {
      const state = row.querySelector(".state");
      if (row.dataset.job in window.seen || state.textContent !== "succeeded") continue;
      window.seen[row.dataset.job] = 0;
      requestAnimationFrame(() => requestAnimationFrame(() => {
        window.seen[row.dataset.job] = Date.now();
      }));
    }
  };
  look();
  new MutationObserver(look).observe(document.getElementById("jobs"),
    { childList: true, subtree: true, characterData: true });
}"""


def server_row(number: int, now_ms: int) -> dict[str, Any]:
    """Return the row of one server of many."""
    state = STATES[number % len(STATES)]
    failed = state.endswith("failed")
    return {
        "id": uuid7(now_ms - number, number.to_bytes(10, "big")),
        "name": f"rack{number // 40:03}-u{number % 40:02}", "site": SITE, "state": state,
        "cleaned": number % 3 == 0, "hold": False, "job": None,
        "ip": f"10.8.{number >> 8}.{number & 255}",
        "macs": [f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"],
        "bmc": {"url": "https://bmc.invalid/redfish/v1/Systems/1", "secret": "x"},
        "image": IMAGE if state == "active" else None, "hostname": None,
        "error": "the image is larger than the disk" if failed else None,
        "summary": "Supermicro X11, 16 cores, 64 GB, 960 GB NVMe", "accepted_ms": now_ms,
        "changed_ms": now_ms - 1000 * number,
    }  # fmt: skip


async def write_servers(data: Path, count: int) -> None:
    """Let a joined node that does not run write servers of its site."""
    identity = load_or_make_identity(data / KEYS)
    root_fp, clock = read_register(data / REGISTER).root_fp, SystemClock()
    store = MeshStore.open(
        data / "state.db", author=identity.node_id, clock=clock, hub=False,
        sign_head=lambda body: identity.sign(HEAD_KIND, HEAD_N, root_fp, body),
    )  # fmt: skip
    rows = [server_row(number, clock.now_ms()) for number in range(count)]

    def write(part: list[dict[str, Any]]) -> Any:
        def fn(tx: Tx) -> None:
            for row in part:
                tx.put(tables.site_scope(SITE), tables.SERVER, row["id"], row)

        return fn

    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for start in range(0, count, GROUP):
            await store.write(write(rows[start : start + GROUP]))
        nursery.cancel_scope.cancel()
    store.close()


def percentile(values: list[float], share: float) -> float:
    """Return the value below which this share lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


# -- the list ----------------------------------------------------------------------------------


def timed(client: httpx2.Client, address: str, rounds: int) -> tuple[float, str]:
    """Return the 95th percentile of getting an address, ms, and its text."""
    took: list[float] = []
    text = ""
    for _ in range(rounds + 1):
        began = time.perf_counter()
        answer = client.get(address)
        took.append(1000 * (time.perf_counter() - began))
        assert answer.status_code == 200, answer.status_code
        text = answer.text
    return percentile(took[1:], 0.95), text  # the first one also opens the connection


@contextmanager
def file_server(folder: Path) -> Generator[str]:
    """Serve a folder with Python's own file server."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """A file server that keeps the connection and logs nothing."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def measure_lists(run: Fleet, folder: Path, servers: int, rounds: int) -> dict[str, Any]:
    """Return how long the lists of servers take, beside a file of the same content."""
    figures: dict[str, Any] = {}
    token = (run.hub / "api-token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/html"}
    page = ""
    with httpx2.Client(
        base_url=f"https://127.0.0.1:{run.hub_port}", verify=False, trust_env=False,
        headers=headers, timeout=30,
    ) as client:  # fmt: skip
        for name, address in zip(("plain", "grouped", "filtered"), LISTS, strict=True):
            took, page_text = timed(client, address, rounds)
            figures[f"list_{name}_ms"] = round(took, 1)
            page = page or page_text
    assert f"{servers + run.servers} servers" in page, "the hub does not have all servers"
    (folder / "list.html").write_text(page)
    with file_server(folder) as url, httpx2.Client(base_url=url, trust_env=False) as client:
        took, _ = timed(client, "/list.html", rounds)
        figures["file_ms"] = round(took, 2)
    worst = max(figures[f"list_{name}_ms"] for name in ("plain", "grouped", "filtered"))
    return {**figures, "list_5000_ms": worst, "list_ratio": round(worst / took, 1)}


# -- the browser -------------------------------------------------------------------------------


def first_visit(browser: Any, at: Visit, path: str) -> tuple[int, int]:
    """Return bytes on the wire and requests of a page for somebody with an empty cache."""
    context = browser.new_context(ignore_https_errors=True)
    context.add_cookies(at.page.context.cookies())
    page = context.new_page()
    network = context.new_cdp_session(page)
    network.send("Network.enable")
    got: list[float] = []
    asked: list[str] = []
    network.on("Network.loadingFinished", lambda event: got.append(event["encodedDataLength"]))
    network.on("Network.requestWillBeSent", lambda event: asked.append(event["requestId"]))
    page.goto(at.url + path)
    page.wait_for_selector("#feed.good")
    page.wait_for_timeout(500)
    context.close()
    return int(sum(got)), len(asked)


def pages(run: Fleet) -> list[str]:
    """Return the addresses of all kinds of pages."""
    server = run.server("srv1", run.hub)["id"]
    job, node = run.get(run.hub, "/jobs")[0]["id"], run.get(run.hub, "/nodes")[0]["id"]
    return [
        "/", "/sites", "/sites/two", "/nodes", f"/nodes/{node}", "/pending", "/install",
        "/servers", "/servers?group=state", f"/servers/{server}", "/jobs", f"/jobs/{job}",
        "/assets", f"/assets/{IMAGE}", "/search?q=srv",
    ]  # fmt: skip


def look_at(browser: Any, run: Fleet, password: str) -> dict[str, Any]:
    """Return what all pages weigh, and what stands in people's way on them."""
    url, grave, complaints, foreign = f"https://127.0.0.1:{run.hub_port}", 0, 0, 0
    weights: dict[str, tuple[int, int]] = {}
    for scheme in ("light", "dark"):
        with visit(browser, url, color_scheme=scheme) as at:
            sign_in(at, "admin", password)
            for path in pages(run):
                at.open(path)
                for found in at.violations():
                    grave += 1
                    say(f"{scheme} {path}: {found}")
                if scheme == "light":
                    weights[path] = first_visit(browser, at, path)
            complaints, foreign = complaints + len(at.complaints), foreign + len(at.foreign)
            for text in at.complaints:
                say(f"{scheme}: {text}")
    return {
        "first_visit_gz_bytes": max(size for size, _ in weights.values()),
        "overview_gz_bytes": weights["/"][0],
        "requests": max(count for _, count in weights.values()),
        "pages": len(weights), "axe_serious": grave, "console_errors": complaints,
        "foreign_requests": foreign,
    }  # fmt: skip


def measure_events(browser: Any, run: Fleet, password: str, events: int) -> dict[str, Any]:
    """Return how long it takes from a job's row at its node to the word on the screen."""
    took: list[float] = []
    with visit(browser, f"https://127.0.0.1:{run.hub_port}") as at:
        sign_in(at, "admin", password)
        at.open("/jobs?filter=kind:server.power")
        at.page.evaluate(SEEN)
        for number in range(events):
            job = run.order("server", "power", f"srv{1 + number % run.servers}", "on")
            shown = seen_at(at, job)
            took.append(shown - run.ended(job)["ended_ms"])
    return {
        "events": events,
        "event_to_pixel_ms": round(percentile(took, 0.95)),
        "event_to_pixel_p50_ms": round(statistics.median(took)),
    }


def seen_at(at: Visit, job: str) -> float:
    """Return when the page showed that a job has succeeded, Unix ms."""
    end = time.monotonic() + WAIT_S
    while not (shown := at.page.evaluate("(job) => window.seen[job]", job)):
        if time.monotonic() > end:
            raise DemoFailed(f"job {job} never showed as succeeded")
        time.sleep(0.02)
    return float(shown)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run hub, nodes, rack and browser; return the figures."""
    with tempfile.TemporaryDirectory(prefix="rackmesh-console-") as name:
        folder = Path(name)
        with fleet(folder / "fleet") as run:
            run.start_sites()
            run.register_image()
            run.accept(run.servers)
            bulk = run.folder / "node-bulk"
            run.join(SITE, bulk)
            trio.run(write_servers, bulk, options.servers)
            began = time.monotonic()
            run.run_node(bulk, "--subnet", "127.93.0.0/24")
            wanted = options.servers + run.servers
            wait_for(
                "the hub has all servers", lambda: known(run) == wanted, 300, run.processes
            )
            figures: dict[str, Any] = {
                "servers": wanted, "replicated_s": round(time.monotonic() - began, 1),
            }  # fmt: skip
            password = (run.hub / "admin-password").read_text().strip()
            figures |= measure_lists(run, folder, options.servers, options.rounds)
            with chromium() as browser:
                figures |= measure_events(browser, run, password, options.events)
                figures |= look_at(browser, run, password)
            return figures


def known(run: Fleet) -> int:
    """Return how many servers the hub counts."""
    return sum(site["servers"] for site in run.get(run.hub, "/sites") or [])


def main() -> int:
    """Print a table and the JSON object."""
    parser = argparse.ArgumentParser(prog="scripts/bench/console", description=__doc__)
    parser.add_argument("--servers", type=int, default=SERVERS)
    parser.add_argument("--events", type=int, default=EVENTS, help="at least 20 tell a p95")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="requests of each list")
    options = parser.parse_args()
    if CHROMIUM is None:
        say("rackmesh: the bench needs Chromium: apt-get install chromium")
        return 1
    try:
        figures = measure(options)
    except DemoFailed as exc:
        say(f"rackmesh: the bench failed: {exc}")
        return 1
    for key, value in figures.items():
        say(f"{key:<22} {value}")
    print(json.dumps(figures, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
