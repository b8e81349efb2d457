"""Our mesh beside serf: the same number of processes, the same machine, one after the other.

What is timed, from the moment all processes listen (starting is reported apart):

* join: every process is told the address of the first one, until every process knows all others
  (serf: all members alive; ours: everybody's row, written after it began to listen, durable,
  with its addresses). Until each also has a link to every other one is ``links_s``, which serf,
  that keeps none, has no counterpart of; it is compared with serf's join all the same;
* event: one process says something, until all have it (serf: a user event; ours: one row in the
  fleet, durable at its author before it leaves and at each receiver before it counts);
* death: one process is killed (SIGKILL), until all others say that it is gone.

Both are watched through pipes or sockets by this process. Serf encrypts with one shared key,
ours with a session for each pair of members. Ratios are ours / serf, of the medians.
"""

import argparse
import base64
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgpack
import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.trust import identity

START_S: Final = 120.0
WAIT_S: Final = 90.0
SETTLE_S: Final = 3.0
"""Between two measurements, so that neither pays for what the one before left behind."""
EVENTS: Final = 5
MEMBER: Final = Path(__file__).with_name("bench_mesh_member.py")


class Watched:
    """What each process has said so far, as a level to wait for."""

    def __init__(self) -> None:
        self.said: set[tuple[int, str, str]] = set()
        self._lot = trio.lowlevel.ParkingLot()

    def add(self, number: int, kind: str, about: str = "") -> None:
        self.said.add((number, kind, about))
        self._lot.unpark_all()

    def forget(self, kind: str) -> None:
        """Begin anew with one kind: a node may have been missed before it ever came."""
        self.said = {one for one in self.said if one[1] != kind}

    async def all_say(self, numbers: set[int], kind: str, about: str = "") -> None:
        with trio.fail_after(WAIT_S):
            while any((number, kind, about) not in self.said for number in numbers):
                await self._lot.park()


class Fleet:
    """Processes of one kind."""

    name: str

    def __init__(self, count: int) -> None:
        self.count = count
        self.watched = Watched()
        self.processes: list[trio.Process] = []

    def rss_mib(self) -> float:
        return statistics.median(rss_mib(process.pid) for process in self.processes)

    def cpu_s(self) -> float:
        return sum(cpu_s(process.pid) for process in self.processes)

    async def stop(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


class OurFleet(Fleet):
    """Members of our mesh."""

    name = "rackmesh"

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self._ports: dict[int, int] = {}
        self._ids = [identity(f"member-{number}").node_id for number in range(count)]

    async def start(self, nursery: trio.Nursery, folder: Path) -> None:
        for number in range(self.count):
            argv = [sys.executable, str(MEMBER), str(number), str(self.count)]
            process = await trio.lowlevel.open_process(
                [*argv, str(folder / str(number))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self.processes.append(process)
            nursery.start_soon(self._watch, number, process)
        await self.watched.all_say(set(range(self.count)), "listens")

    async def _watch(self, number: int, process: trio.Process) -> None:
        assert process.stdout is not None
        buffer = b""
        async for data in process.stdout:
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                said = json.loads(line)
                if said["said"] == "listens":
                    self._ports[number] = said["port"]
                self.watched.add(number, said["said"], said.get("key", ""))

    async def _tell(self, number: int, line: str) -> None:
        pipe = self.processes[number].stdin
        assert pipe is not None
        await pipe.send_all(line.encode() + b"\n")

    async def join(self) -> None:
        for number in range(1, self.count):
            await self._tell(number, f"seed {self._ids[0]}@127.0.0.1:{self._ports[0]}")
        await self.watched.all_say(set(range(self.count)), "knows")

    async def event(self, number: int, key: str) -> None:
        await self._tell(number, f"event {key}")

    def kill(self, number: int) -> str:
        self.processes[number].send_signal(signal.SIGKILL)
        return self._ids[number]


class SerfFleet(Fleet):
    """Serf agents, watched and told over their RPC port (msgpack over TCP)."""

    name = "serf"

    def __init__(self, count: int, program: str, profile: str) -> None:
        super().__init__(count)
        self.profile = profile
        self._program = program
        self._ports = free_ports(2 * count)
        self._calls: list[SerfCalls] = []

    def argv(self, number: int, key: str) -> list[str]:
        gossip, rpc = self._ports[2 * number : 2 * number + 2]
        return [
            self._program, "agent", f"-node=member-{number}", f"-profile={self.profile}",
            f"-bind=127.0.0.1:{gossip}", f"-rpc-addr=127.0.0.1:{rpc}", f"-encrypt={key}",
            "-log-level=err",
        ]  # fmt: skip

    async def start(self, nursery: trio.Nursery, _folder: Path) -> None:
        key = base64.b64encode(os.urandom(32)).decode()
        for number in range(self.count):
            silent = subprocess.DEVNULL
            self.processes.append(
                await trio.lowlevel.open_process(
                    self.argv(number, key), stdout=silent, stderr=silent
                )
            )
        for number in range(self.count):
            stream = await connect(self._ports[2 * number + 1])
            calls = SerfCalls(stream)
            self._calls.append(calls)
            nursery.start_soon(calls.run, partial(self._on_event, number))
            await calls.call("handshake", {"Version": 1})
            await calls.call("stream", {"Type": "*"})

    def _on_event(self, number: int, event: dict[str, Any]) -> None:
        match event.get("Event"):
            case "user":
                self.watched.add(number, "event", event["Name"])
            case "member-join" | "member-failed" as kind:
                word = "joined" if kind == "member-join" else "gone"
                for member in event["Members"]:
                    self.watched.add(number, word, member["Name"])
            case _:
                pass
        known = sum(
            1 for who, word, _ in self.watched.said if (who, word) == (number, "joined")
        )
        if known == self.count:
            self.watched.add(number, "knows")
            self.watched.add(number, "linked")

    async def join(self) -> None:
        first = [f"127.0.0.1:{self._ports[0]}"]
        async with trio.open_nursery() as nursery:
            for calls in self._calls[1:]:
                nursery.start_soon(calls.call, "join", {"Existing": first, "Replay": False})
        await self.watched.all_say(set(range(self.count)), "knows")

    async def event(self, number: int, key: str) -> None:
        body = {"Name": key, "Payload": b"", "Coalesce": False}
        await self._calls[number].call("event", body)

    def kill(self, number: int) -> str:
        self.processes[number].send_signal(signal.SIGKILL)
        return f"member-{number}"


class SerfCalls:
    """One RPC connection to a serf agent."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._number = 0
        self._waiting: dict[int, trio.Event] = {}
        self._with_body: set[int] = set()

    async def call(self, command: str, body: dict[str, Any]) -> None:
        self._number += 1
        number = self._number
        done = self._waiting[number] = trio.Event()
        if command == "join":
            self._with_body.add(number)
        head = {"Command": command, "Seq": number}
        await self._stream.send_all(msgpack.packb(head) + msgpack.packb(body))
        with trio.fail_after(WAIT_S):
            await done.wait()

    async def run(self, on_event: Callable[[dict[str, Any]], None]) -> None:
        """Read answers and events until the agent ends."""
        unpacker = msgpack.Unpacker(raw=False, unicode_errors="replace")
        head: dict[str, Any] | None = None
        try:
            async for data in self._stream:
                unpacker.feed(data)
                for item in unpacker:
                    if head is None:
                        waiting = self._waiting.pop(item["Seq"], None)
                        if item["Error"]:
                            raise RuntimeError(f"serf: {item['Error']}")
                        if waiting is None or item["Seq"] in self._with_body:
                            head = item  # an event of the stream, or an answer with a body
                        if waiting is not None:
                            waiting.set()
                    else:
                        if "Event" in item:
                            on_event(item)
                        head = None
        except trio.BrokenResourceError:
            pass


async def measure(fleet: OurFleet | SerfFleet, folder: Path) -> dict[str, Any]:
    """Run one fleet through everything; return seconds."""
    everybody = set(range(fleet.count))
    async with trio.open_nursery() as nursery:
        try:
            start_s = await timed(partial(fleet.start, nursery, folder))
            await trio.sleep(SETTLE_S)
            before_s, began = fleet.cpu_s(), trio.current_time()
            join_s = await timed(fleet.join)
            await fleet.watched.all_say(everybody, "linked")
            links_s = trio.current_time() - began
            join_cpu_s = fleet.cpu_s() - before_s
            await trio.sleep(SETTLE_S)
            events = []
            before_s = fleet.cpu_s()
            for number in range(EVENTS):
                key = f"event-{number}"
                events.append(await timed(partial(said_by_all, fleet, everybody, key)))
                await trio.sleep(SETTLE_S / 3)
            event_cpu_s = (fleet.cpu_s() - before_s) / EVENTS
            resident = fleet.rss_mib()
            victim = fleet.count - 1
            fleet.watched.forget("gone")
            began = trio.current_time()
            gone = fleet.kill(victim)
            await fleet.watched.all_say(everybody - {victim}, "gone", gone)
            death_s = trio.current_time() - began
        finally:
            with trio.CancelScope(shield=True):
                await fleet.stop()
        nursery.cancel_scope.cancel()
    event_s = statistics.median(events)
    return {
        "start_s": start_s, "join_s": join_s, "links_s": links_s,
        "event_s": event_s, "death_s": death_s,
        "rss_mib": resident, "join_cpu_s": join_cpu_s, "event_cpu_s": event_cpu_s,
    }  # fmt: skip


async def said_by_all(fleet: OurFleet | SerfFleet, everybody: set[int], key: str) -> None:
    await fleet.event(0, key)
    await fleet.watched.all_say(everybody, "event", key)


async def timed(work: Callable[[], Awaitable[None]]) -> float:
    began = trio.current_time()
    with trio.fail_after(START_S):
        await work()
    return trio.current_time() - began


async def connect(port: int) -> trio.SocketStream:
    with trio.fail_after(START_S):
        while True:
            try:
                return await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody has now, for TCP."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def rss_mib(pid: int) -> float:
    """Return the resident memory of one process, MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_s(pid: int) -> float:
    """Return the CPU time that one process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def versions(program: str) -> list[str]:
    """Return what serf says it is, and what its package is called."""
    said = subprocess.run([program, "version"], capture_output=True, text=True, check=False)
    words = [said.stdout.splitlines()[0] if said.stdout else "?"]
    if shutil.which("dpkg-query"):
        query = ["dpkg-query", "-W", "-f", "${Package} ${Version}", "serf"]
        package = subprocess.run(query, capture_output=True, text=True, check=False)
        words.append(package.stdout or "not from a package")
    return words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", default="lan", help="serf's timing: lan, local or wan")
    parser.add_argument("--serf", default=shutil.which("serf"), help="the program")
    options = parser.parse_args()
    if not options.serf:
        sys.exit("serf is not installed (Debian: apt-get install serf)")
    serf = SerfFleet(options.processes, options.serf, options.profile)
    print("serf:", ", ".join(versions(options.serf)))
    print("     ", " ".join(serf.argv(0, "KEY")))
    print("ours:", sys.executable, MEMBER.name, "0", options.processes, "FOLDER")
    rounds: dict[str, list[dict[str, float]]] = {"serf": [], "rackmesh": []}
    for number in range(options.rounds):
        for fleet in (
            SerfFleet(options.processes, options.serf, options.profile),
            OurFleet(options.processes),
        ):
            with tempfile.TemporaryDirectory(prefix="rackmesh-bench-") as name:
                figures = trio.run(measure, fleet, Path(name))
            rounds[fleet.name].append(figures)
            text = "  ".join(f"{key} {value:7.3f}" for key, value in figures.items())
            print(f"round {number + 1}  {fleet.name:8}  {text}", flush=True)
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{options.processes} processes each, medians of {options.rounds} rounds, {load}")
    middle = {
        name: {key: statistics.median(one[key] for one in all_) for key in all_[0]}
        for name, all_ in rounds.items()
    }
    result: dict[str, Any] = {}
    for key in ("join", "event", "death"):
        ours, theirs = middle["rackmesh"][f"{key}_s"], middle["serf"][f"{key}_s"]
        result[f"{key}_ratio"] = round(ours / theirs, 3)
        result[f"{key}_s"], result[f"serf_{key}_s"] = round(ours, 3), round(theirs, 3)
    result["links_s"] = round(middle["rackmesh"]["links_s"], 3)
    result["links_ratio"] = round(result["links_s"] / middle["serf"]["join_s"], 3)
    for key in ("start_s", "rss_mib", "join_cpu_s", "event_cpu_s"):
        result[key] = round(middle["rackmesh"][key], 2)
        result[f"serf_{key}"] = round(middle["serf"][key], 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
