"""Jobs: the list, one with its steps and evidence, and what a person may say about one.

Rule: a word about a job is an order like any other: signed, carried out once, refused with a
sentence; it has an id of its own, under which its outcome can be read.
"""

from typing import Any

import click

from mesh.cli.context import Where, in_path, options, print_json
from mesh.cli.nouns import every, lines_of, listing
from mesh.cli.orders import give, repeatable, waiting, within
from mesh.cli.tables import age, print_table

INDENT = " " * 4


@click.command("list")
@click.option("--all", "archived", is_flag=True, help="Also those that are archived.")
@listing
@options
def job_list(where: Where, as_json: bool, archived: bool, **asked: Any) -> None:
    """List jobs, running ones first; those that are archived only with --all."""
    if not archived:
        asked["filter"] = f"archived:no {asked['filter'] or ''}"
    answer = every(where, "/jobs", as_json, asked)
    rows = [
        (j["id"], j["kind"], j["site"], j["server_name"], j["state"],
         j["error"] or j["waits_for"] or _step(j), age(j["created_ms"], answer["as_of_ms"]))
        for j in answer["items"]
    ]  # fmt: skip
    if not as_json:
        columns = ("JOB", "KIND", "SITE", "SERVER", "STATE", "NOW", "AGE")
        print_table(columns, rows, "there are no jobs")


def _step(job: dict[str, Any]) -> str:
    running = [step for step in job["steps"] if step["state"] == "running"]
    if not running:
        return ""
    step = running[0]
    if step["total"]:
        return f"{step['name']} {100 * (step['done'] or 0) // step['total']} %"
    return str(step["name"])


@click.command("show")
@click.argument("job")
@options
def job_show(where: Where, as_json: bool, job: str) -> None:
    """Show one job with its steps, what each comes after, and their evidence."""
    with where.client() as client:
        answer = client.get(f"/jobs/{in_path(job)}")
    if as_json:
        print_json(answer)
        return
    item = answer["item"]
    for line in lines_of({name: item[name] for name in item if name != "steps"}):
        click.echo(line)
    for line in steps_of(item["steps"]):
        click.echo(line)


def steps_of(steps: list[dict[str, Any]]) -> list[str]:
    """Return the steps of a job as a graph: one line a step, with what it comes after."""
    if not steps:
        return ["steps: -"]
    wide = max(len(step["id"]) for step in steps)
    found = ["steps:"]
    for step in steps:
        after = f" after {', '.join(step['after'])}" if step["after"] else ""
        more = [f"begun {step['attempts']} times"] if step["attempts"] > 1 else []
        more += ["solo"] if step["solo"] else []
        if step["started_ms"] and step["ended_ms"]:
            more.append(f"{max(step['ended_ms'] - step['started_ms'], 0) / 1000:.1f} s")
        told = f" ({', '.join(more)})" if more else ""
        line = f"  {step['state']:9} {step['id']:{wide}} {step['name']}{after}{told}"
        found.append(line)
        found += [f"{INDENT}error: {step['error']}"] if step["error"] else []
        found += [f"{INDENT}{line}" for line in lines_of(step["evidence"])]
    return found


@click.command("skip")
@click.argument("job")
@click.option("--reason", required=True, help="Why the step need not be done; is kept.")
@click.option("--step", help="Id of the step; default: the one that failed.")
@waiting
@repeatable
@options
def job_skip(
    where: Where, as_json: bool, job: str, reason: str, step: str | None, **more: Any
) -> None:
    """Let the failed or parked step of JOB count as skipped, and go on behind it.

    Not a step whose result the following ones rest on, as an image that was written.
    """
    params = {"reason": reason, **({"step": step} if step else {})}
    say(where, as_json, more, "job.skip", job, params)


@click.command("confirm")
@click.argument("job")
@click.option("--done/--not-done", "done", required=True, default=None,
              help="Whether the step was done.")  # fmt: skip
@click.option("--reason", required=True, help="How you know; is kept as evidence.")
@waiting
@repeatable
@options
def job_confirm(
    where: Where, as_json: bool, job: str, done: bool, reason: str, **more: Any
) -> None:
    """Say whether the step that JOB is parked at, which must not run twice, was done."""
    say(where, as_json, more, "job.confirm", job, {"done": done, "reason": reason})


@click.command("kill")
@click.argument("job")
@click.option("--reason", help="Why; is kept.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@repeatable
@options
def job_kill(
    where: Where, as_json: bool, job: str, reason: str | None, yes: bool, **more: Any
) -> None:
    """End JOB at once, even when its step hangs; nobody then knows how its server stands."""
    if not yes:
        click.confirm(
            "The job ends in the middle of its step, and its server counts as failed. Go on?",
            abort=True,
        )
    say(where, as_json, more, "job.kill", job, _why(reason))


@click.command("hold")
@click.argument("job")
@click.option("--reason", help="Why; who looks at the job sees it.")
@repeatable
@options
def job_hold(where: Where, as_json: bool, job: str, reason: str | None, **more: Any) -> None:
    """Let JOB begin no next step; the one that runs ends. See unhold."""
    say(where, as_json, more, "job.hold", job, _why(reason))


@click.command("unhold")
@click.argument("job")
@waiting
@repeatable
@options
def job_unhold(where: Where, as_json: bool, job: str, **more: Any) -> None:
    """Let JOB, which is held, go on."""
    say(where, as_json, more, "job.unhold", job, {})


@click.command("archive")
@click.argument("job")
@repeatable
@options
def job_archive(where: Where, as_json: bool, job: str, **more: Any) -> None:
    """Put JOB, which has ended, out of the lists; `job list --all` still has it."""
    say(where, as_json, more, "job.archive", job, {})


def _why(reason: str | None) -> dict[str, Any]:
    return {"reason": reason} if reason else {}


def say(
    where: Where, as_json: bool, more: dict[str, Any], kind: str, job: str, params: Any
) -> None:
    """Say a word about a job, and wait until it was carried out; fail when it was refused."""
    from mesh.cli.follow import follow_job, follow_verb

    body = {"kind": kind, "job": job, "params": params, **within(more)}
    answer = give(where, "/orders", body, more["key"])
    if not more.get("wait"):
        if as_json:
            print_json(answer)
        else:
            click.echo(f"order {answer['item']['order']}")
            click.echo(f"see what came of it: rackmesh job show {job}", err=True)
        return
    follow_verb(where, answer["item"]["order"], more["timeout_s"])
    item = follow_job(where, job, more["timeout_s"])
    if as_json:
        print_json({"schema": "rackmesh/job/1", "item": item})
    else:
        click.echo(f"{item['kind']} of {item['server_name'] or item['server']}: succeeded")
