"""Judges what a fleet has left behind against the orders given; shares no code with it.

The model is the operator's: what was acknowledged is done once or says why not, what is done is
really on the disk, and everybody's books agree. ``violations`` returns sentences, none when all
is well. Pure: it sees ``Books`` only.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.e2e.chaos.books import BmcOrder, Books, Given

DEPLOY, RELEASE, RETRY = "server.deploy", "server.release", "job.retry"
INTO_RAMDISK = ["power off", "boot Pxe", "power on"]
FROM_DISK = ["boot Hdd", "power off", "power on"]
RESTART = len(INTO_RAMDISK)
SCRIPTS = {DEPLOY: INTO_RAMDISK + FROM_DISK, RELEASE: [*INTO_RAMDISK, "power off"]}
"""What a job may order of a BMC, in this order; any prefix may begin anew."""
Jobs = dict[str, dict[str, Any]]


def violations(books: Books) -> list[str]:
    """Return what must not be."""
    jobs: Jobs = next(iter(books.rows.values()))["job"]
    found = [*_agree(books), *_each_order_once(books, jobs), *_servers(books, jobs)]
    found += [*_bmcs(books, jobs), *_budget(books, jobs), *_orphans(books, jobs)]
    found += [f"left over: {name}" for name in books.left_over]
    found += [f"ended by itself: {sentence}" for sentence in books.ends]
    return found


def driven_twice(books: Books) -> list[str]:
    """Return which orders to a BMC no single job explains."""
    return list(_bmcs(books, next(iter(books.rows.values()))["job"]))


def _agree(books: Books) -> Iterator[str]:
    """Hub and nodes hold the same rows of the site, and show the same jobs."""
    (first, rows), *others = books.rows.items()
    for other, theirs in others:
        for table in rows.keys() - {"job_log", "staged"}:
            for key in rows[table].keys() | theirs[table].keys():
                if rows[table].get(key) != theirs[table].get(key):
                    yield f"{first} and {other} differ in {table} {key}"
    (first, shown), *others_shown = books.shown.items()
    for other, seen in others_shown:
        for job in shown.keys() | seen.keys():
            one, two = shown.get(job), seen.get(job)
            if one is None or two is None or one["state"] != two["state"]:
                states = [(item or {}).get("state") for item in (one, two)]
                yield f"{first} and {other} show job {job} as {states}"


def _each_order_once(books: Books, jobs: Jobs) -> Iterator[str]:
    """Every order that was acknowledged is one job that ended; nobody invented another."""
    known = {given.order for given in books.given}
    for given in books.given:
        job = jobs.get(given.order)
        if job is None:
            yield f"{given.kind} of {given.server} ({given.order}) is lost"
        elif (job["kind"], job["server_name"]) != (given.kind, given.server):
            yield f"{given.order} is {job['kind']} of {job['server_name']}, not {given}"
    for job in jobs.values():
        name = f"{job['kind']} of {job['server_name']} ({job['id']})"
        if job["state"] not in ("succeeded", "failed"):
            yield f"{name} is stuck: {job['state']}, {job['waits_for']}"
        if job["state"] == "failed" and not job["error"]:
            yield f"{name} failed without a sentence"
    maybe = Counter(books.unanswered)
    for job in jobs.values():
        what = (job["kind"], job["server_name"])
        if job["id"] not in known and job["kind"] != "server.accept":
            maybe[what] -= 1
            if maybe[what] < 0:
                yield f"nobody ordered {job['kind']} of {job['server_name']} ({job['id']})"
    for daemon, runners in books.job_authors.items():
        for job_id, names in runners.items():
            if len(names) > 1:
                yield f"{daemon}: job {job_id} was begun by {len(names)} nodes"


def _last(books: Books, jobs: Jobs, server: str) -> dict[str, Any] | None:
    """Return the job that a server was left by: the last one that did something to it."""
    worked = [
        job for job in jobs.values()
        if job["server_name"] == server and job["kind"] in SCRIPTS and job.get("started_ms")
    ]  # fmt: skip
    return max(worked, key=lambda job: int(job["started_ms"]), default=None)


def _servers(books: Books, jobs: Jobs) -> Iterator[str]:
    """A server is what its last job made of it, and its disk was not touched since."""
    servers = {
        body["name"]: body for body in next(iter(books.rows.values()))["server"].values()
    }
    for name in {given.server for given in books.given}:
        row, job = servers[name], _last(books, jobs, name)
        if row.get("job") and jobs.get(row["job"], {}).get("state") in ("succeeded", "failed"):
            yield f"{name} still belongs to job {row['job']}, which has ended"
        if job is None or job["state"] != "succeeded":
            continue
        disk = books.disks[books.machines[name]]
        wanted = "active" if job["kind"] == DEPLOY else "available"
        if row["state"] != wanted:
            yield f"{name} is {row['state']} after {job['kind']} succeeded"
        if job["kind"] == DEPLOY and disk.image_sha256 != books.image_sha256:
            yield f"{name} does not have the image on its disk"
        if job["kind"] == RELEASE and not disk.empty:
            yield f"{name} was released, but its disk is not empty"
        if disk.written_ms > job["ended_ms"]:
            late = disk.written_ms - job["ended_ms"]
            yield f"{name} was written {late} ms after its {job['kind']} had succeeded"
        steps = {step["id"]: step for step in job["steps"]}
        if job["kind"] == DEPLOY and "attempt" not in steps["phone-in"]["evidence"]:
            yield f"{name} is active, but never phoned in"


def _bmcs(books: Books, jobs: Jobs) -> Iterator[str]:
    """Every order that a BMC got is of one job while it ran, in the order of its plan."""
    names = {machine: server for server, machine in books.machines.items()}
    of_job: dict[str, list[BmcOrder]] = {}
    for order in sorted(books.bmc_orders, key=lambda order: order.at_ms):
        server = names.get(order.machine)
        running = [
            job for job in jobs.values()
            if job["server_name"] == server and job["kind"] in SCRIPTS and job.get("started_ms")
            if job["started_ms"] <= order.at_ms <= job["ended_ms"]
        ]  # fmt: skip
        if len(running) != 1:
            yield f"{order.what} of {order.machine} at {order.at_ms} belongs to no job"
            continue
        of_job.setdefault(running[0]["id"], []).append(order)
    boots: dict[str, str] = {}
    for job_id in sorted(of_job, key=lambda job: int(jobs[job]["started_ms"])):
        machine = of_job[job_id][0].machine
        given = [order.what for order in of_job[job_id]]
        script, boot = SCRIPTS[jobs[job_id]["kind"]], boots.get(machine, "")
        if (wrong := _out_of_order(given, script, boot)) is not None:
            yield f"{wrong} is out of order in job {job_id}: {', '.join(given)}"
        boots[machine] = next((o for o in reversed(given) if o.startswith("boot")), boot)


def _out_of_order(orders: list[str], script: list[str], boot: str) -> str | None:
    """Return the first order that the plan does not allow there, or None.

    What stands already need not be ordered: switching off what is off, booting from where it
    boots anyway (``boot``: what stood before the job). A step whose outcome nobody knows is
    done again; a new attempt begins at the front, one that waits for the phone-in at the
    restart.
    """
    places = {-1}
    for order in orders:
        after: set[int] = set()
        for at in places:
            for begin in {at, -1} | ({RESTART} if at > RESTART else set()):
                after |= {begin} if begin >= 0 else set()
                after |= _next(script, begin, boot)
        places = {at for at in after if order.startswith(script[at])}
        if not places:
            return order
        boot = order if order.startswith("boot") else boot
    return None


def _next(script: list[str], at: int, boot: str) -> set[int]:
    """Return the places that may follow one: the next, and beyond it what stands already."""
    found = set()
    for place in range(at + 1, len(script)):
        found.add(place)
        stands = script[place] == "power off" or (boot and boot.startswith(script[place]))
        if not stands:
            break
    return found


def _budget(books: Books, jobs: Jobs) -> Iterator[str]:
    """What destroyed data was counted, once."""
    for daemon, rows in books.rows.items():
        counted = Counter(key.partition("/")[2] for key in rows["budget"])
        for job_id, times in counted.items():
            if job_id != "policy" and times > 1:
                yield f"{daemon}: job {job_id} stands {times} times in the budget"
            if job_id != "policy" and job_id not in jobs:
                yield f"{daemon}: the budget counts {job_id}, which is no job"
        for job in jobs.values():
            if job["kind"] == RELEASE and job.get("started_ms") and not counted[job["id"]]:
                yield f"{daemon}: the budget does not count {job['id']}"


def _orphans(books: Books, jobs: Jobs) -> Iterator[str]:
    """No row without what it belongs to."""
    for daemon, rows in books.rows.items():
        for order in rows["order"].keys() - jobs.keys():
            yield f"{daemon}: order {order} has no job"
        for job in jobs.keys() - rows["order"].keys():
            yield f"{daemon}: job {job} has no order"
        for job in rows["job_log"].keys() - jobs.keys():
            yield f"{daemon}: a log of job {job}, which is none"
        if rows["staged"]:
            yield f"{daemon}: rows of a delta that was never finished"


def retries(given: list[Given]) -> int:
    """Count how often the operator had to say retry."""
    return sum(order.kind == RETRY for order in given)
