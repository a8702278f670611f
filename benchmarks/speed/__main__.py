"""Our speed on three backends beside vit-pytorch, timm, transformers and KerasHub, in one run.

    pip install -c constraints.txt -e ".[jax,torch,tune,serving,formats,bench]"
    python -m benchmarks.speed
    python -m benchmarks.speed --only heads16 defect --precision float32
    python -m benchmarks.speed --only latency input startup growth --quick

Each variant is a process of its own; they take turns, so that a busy machine slows all of them, and ratios
are those of one turn. Ours train by `model.fit`, the other torch packages by the loop that their
documentation shows. Results are added to `benchmarks/speed.json`; `benchmarks/speed.md` and `speed.png` are
written from it.
"""

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal

import tyro

from benchmarks.commands import Commands, command_rows
from benchmarks.speed.bounds import PEAK, PRODUCTS
from benchmarks.speed.machine import machine
from benchmarks.speed.page import write_page
from benchmarks.speed.processes import Process, take_turns
from benchmarks.speed.works import CELLS, WORKS, Cell, as_arguments, variants

RESULTS = Path(__file__).parents[1] / "speed.json"
TABLES = {
    "latency": "benchmarks.latency:latency_rows",
    "input": "benchmarks.input_pipeline:input_rows",
    "startup": "benchmarks.startup:startup_rows",
    "growth": "benchmarks.growth:growth_rows",
}
"""What else is measured: functions that take `quick` and return rows."""
COMMANDS = "commands"


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Args:
        only: works (heads16, defect, dropout, conv, batch1, ti16, s16) and tables (latency, input, startup,
            growth, commands); by default all.
        who: variants, such as `ours torch` or `vit-pytorch compiled`; by default all that have the work.
        precision: by default both.
        threads: by default as the list of cells has them.
        core: the first core of all variants. With one thread, two benchmarks can run on two cores.
        what: training, inference or both.
        against: another checkout of this package, measured beside this one as "before"; of such works nothing
            is written.
        data, weights: images, and published weights that are fine-tuned on them, for `commands`.
        rounds: turns of each variant.
        seconds: that a turn takes, about.
        quick: two short turns, and small tables; nothing is written.
    """

    only: tuple[str, ...] = ()
    who: tuple[str, ...] = ()
    precision: Literal["float32", "bfloat16"] | None = None
    threads: int | None = None
    core: int = 0
    what: tuple[Literal["train", "infer"], ...] = ("train", "infer")
    against: str | None = None
    data: str | None = None
    weights: str | None = None
    rounds: int = 7
    seconds: float = 2.0
    quick: bool = False


def main(settings: Settings) -> None:
    known = (*WORKS, *TABLES, COMMANDS)
    unknown = set(settings.only) - set(known)
    if unknown:
        allowed = ", ".join(known)
        raise SystemExit(f"--only takes {allowed}. Received: {', '.join(sorted(unknown))}")
    wanted = settings.only or known
    for cell in CELLS:
        if (
            cell.work in wanted
            and settings.precision in (None, cell.precision)
            and settings.threads in (None, cell.threads)
        ):
            found = measure(cell, settings)
            if not settings.against:
                keep(cell.title, found, settings)
    for name, place in TABLES.items():
        if name in wanted:
            keep_rows(name, [as_dict(row) for row in resolve_name(place)(settings.quick)], settings)
    if COMMANDS in wanted:
        rounds = 1 if settings.quick else 3
        options = Commands(settings.data, settings.weights, against=settings.against, rounds=rounds)
        keep_rows(COMMANDS, command_rows(options), settings)


def keep_rows(name: str, rows: list[dict], settings: Settings) -> None:
    print(f"\n{name}", *map(json.dumps, rows), sep="\n", flush=True)
    keep(name, {"rows": rows}, settings)


def as_dict(row: Any) -> dict:
    """A row by the names of its columns; named tuples have them too."""
    return row if isinstance(row, dict) else row._asdict()


def keep(name: str, found: dict, settings: Settings) -> None:
    """Writes after each part, so that nothing is lost when it is interrupted."""
    if settings.quick or settings.who:
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[name] = {**found, "machine": machine(), "date": time.strftime("%Y-%m-%d")}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write_page(results, RESULTS.with_name("speed.md"), RESULTS.with_name("speed.png"))


def measure(cell: Cell, settings: Settings) -> dict:
    """Images per second by what, variant and turn; of the peak GFLOP/s."""
    print(f"\n{cell.title}", flush=True)
    rounds, seconds = (2, 0.5) if settings.quick else (settings.rounds, settings.seconds)
    names = settings.who or (*variants(cell), PEAK, PRODUCTS)
    with contextlib.ExitStack() as stack:
        processes = []
        for who in names:
            both = (None, settings.against) if settings.against and who.startswith("ours") else (None,)
            for package in both:
                work = {**as_arguments(cell), "core": settings.core}
                process = stack.enter_context(Process(who, work, seconds, package))
                process.who = who if package is None else f"{who} before"
                processes.append(process)
        ready = [process for process in processes if process.is_ready()]
        rates = {what: take_turns(ready, what, rounds) for what in settings.what}
        failed = {process.who: process.error for process in processes if process.error}
    for what, found in rates.items():
        for who, values in sorted(found.items(), key=lambda one: -sorted(one[1])[len(one[1]) // 2]):
            print(f"{what}  {who:24}", *(f"{value:9.1f}" for value in values), flush=True)
    for who, error in failed.items():
        print(f"{who} failed: {error}", flush=True)
    return {"rates": rates, "failed": failed}


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
