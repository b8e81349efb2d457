"""Tables, ages and sizes for people; plain aligned columns when nobody watches."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import click


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str) -> None:
    """Print rows under column names, or one sentence when there are none."""
    if not rows:
        click.echo(empty, err=True)
        return
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        style = "" if os.environ.get("NO_COLOR") else "bold"
        table = Table(box=None, pad_edge=False, header_style=style)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in cells:
            table.add_row(*(cell.replace("[", "\\[") for cell in row))
        Console().print(table)
        return
    widths = [max(len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    for row in [list(columns), *cells]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def age(then_ms: int | None, now_ms: int) -> str:
    """Return how long ago in the largest sensible unit, or ``never``."""
    if then_ms is None:
        return "never"
    seconds = max(0, now_ms - then_ms) // 1000
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def size(count: int | None) -> str:
    """Return bytes in binary units."""
    if count is None:
        return "?"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError
