"""Run a simulator scenario over seeds; see ``scripts/sim``.

A scenario is a module ``tests/sim/<name>_scenario.py``: its docstring says what it shows,
``arguments(parser)`` adds its own flags, and ``run(args, say)`` returns its figures, with
``failures`` (sentences) when something did not hold and ``trace`` (hex) when it keeps one.
"""

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
END = "_scenario.py"


def scenarios() -> list[str]:
    """Return the names of all scenarios."""
    files = (ROOT / "tests" / "sim").glob(f"*{END}")
    return sorted(file.name.removesuffix(END) for file in files)


def over_seeds(
    run: Callable[[int], Any], args: argparse.Namespace, failures: list[str]
) -> Iterator[tuple[int, Any, str]]:
    """Run each seed; yield seed, figures and how to run it again, of those that went through.

    A violation goes into ``failures`` with its command. With ``--jobs`` above 1 ``run`` must be
    a function of a module (or a partial of one).
    """
    for seed, figures, violation in _outcomes(run, args):
        again = f"replay with: {replay(args, seed)}"
        if violation is None:
            yield seed, figures, again
        else:
            failures.append(f"{violation}\n{again}")


def _outcomes(
    run: Callable[[int], Any], args: argparse.Namespace
) -> Iterator[tuple[int, Any, str | None]]:
    seeds = range(args.seed, args.seed + args.seeds)
    if args.jobs <= 1:
        yield from (_one(run, seed) for seed in seeds)
        return
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_one, [run] * len(seeds), seeds)


def _one(run: Callable[[int], Any], seed: int) -> tuple[int, Any, str | None]:
    try:
        return seed, run(seed), None
    except AssertionError as exc:  # a Violation, or an assertion of the cores
        return seed, None, f"violation: {exc}"


def replay(args: argparse.Namespace, seed: int) -> str:
    """Return the command that runs one seed again."""
    fixed = {"scenario", "seed", "seeds", "json", "jobs"}
    flags = [
        f" --{name.replace('_', '-')}" + ("" if value is True else f" {value}")
        for name, value in sorted(vars(args).items())
        if name not in fixed and value not in (None, False)
    ]
    where = f"--scenario {args.scenario} --seed {seed} --seeds 1"
    return f"scripts/sim {where}{''.join(flags)}"


def main() -> int:
    """Run; return the exit status."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--scenario", choices=scenarios(), default="history")
    name = first.parse_known_args()[0].scenario
    scenario = importlib.import_module(f"tests.sim.{name}_scenario")
    args = _arguments(first, scenario)

    def say(line: str) -> None:
        if not args.json:
            print(line, flush=True)

    began = time.perf_counter()
    figures: dict[str, Any] = scenario.run(args, say)
    failures: list[str] = figures.pop("failures", [])
    for failure in failures:
        print(failure)
    report = {
        "scenario": args.scenario,
        "seed": args.seed,
        "seeds": args.seeds,
        **figures,
        "violations": len(failures),
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(report))
    return 1 if failures else 0


def _arguments(first: argparse.ArgumentParser, scenario: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/sim", parents=[first], description=scenario.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=scenario.SEEDS, help="how many")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the seeds")
    parser.add_argument("--json", action="store_true", help="only the last line")
    scenario.arguments(parser)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
