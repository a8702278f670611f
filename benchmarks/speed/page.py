"""The page and the plot of the results."""

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.commands import BEFORE, FINETUNE, FIRST, NOW
from benchmarks.speed.bounds import PEAK, PRODUCTS
from benchmarks.speed.works import CELLS, WORKS, Cell

Rates = dict[str, list[float]]

HEAD = """\
# Speed

Written by `python -m benchmarks.speed`, which says in its docstring how. Images per second, more is better.
Each variant is a process of its own, and they take turns. A ratio is the median of the ratios of the turns,
with the quartiles in brackets. Training is `model.fit` for ours and KerasHub, and a plain loop with AdamW for
the other torch packages; the batch, images, precision, dropout and threads are the same. "Products only" is
plain torch with the matrix products of a step and nothing between them.

"""

GOAL_THREADS = 1
"""The goals were set by figures of one core."""

WHAT = {"train": "training", "infer": "inference"}

REASONS = {
    "bfloat16": "By a profile at head width 16, products and attention take half of a step, and are the same "
    "calls in both; what is between them is compiled by the same compiler. Ours gains by the last block, and "
    "loses 5 % by the optimizer of Keras, which torch runs operation by operation.",
    "KerasHub": "Its speed on torch jumps from one turn to the next, by half.",
    "batch 1": "A third of the step is the optimizer of Keras, and a tenth its search for weights, losses "
    "and metrics in all layers at each step. On TensorFlow and JAX the step is more than twice as fast. On "
    "two threads torch was as fast as vit-pytorch or faster (127 and 120 images/s, medians of three turns).",
    "first command, seconds": "Measured from an empty cache; a second run finds its compiled programs there. "
    "Three seconds of it draw the maps of the report and fit the rejection per class. By CPU seconds it is "
    "0.51.",
    "fine-tuning, seconds": "Six epochs of 1,296 images and the features of the first head, in float32; "
    "torch with `--precision auto` takes 62 s per epoch in bfloat16, and 40 s to compile.",
    "one image": "`predict` checks the file, and calls TensorFlow three times (decode, resize, model).",
}
"""Why a goal is not met, by a part of its name."""


def is_ours(who: str) -> bool:
    return who.startswith("ours")


def is_peer(who: str) -> bool:
    return not is_ours(who) and who not in (PEAK, PRODUCTS)


def best(rates: Rates, among: Callable[[str], bool]) -> str | None:
    found = [who for who in rates if among(who)]
    return max(found, key=lambda who: statistics.median(rates[who]), default=None)


def ratio(ours: Iterable[float], theirs: Iterable[float]) -> tuple[float, float, float]:
    """Of the turns: the median and the quartiles."""
    found = sorted(one / other for one, other in zip(ours, theirs, strict=True))
    if len(found) < 2:
        return found[0], found[0], found[0]
    first, middle, third = statistics.quantiles(found, n=4, method="inclusive")
    return middle, first, third


def text_of(found: tuple[float, float, float]) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(*found)


def shown(value: Any) -> str:
    """A value of a row of another benchmark."""
    if isinstance(value, list | tuple):
        return (" to " if len(value) == 2 else ", ").join(map(shown, value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def rows_table(rows: list[dict]) -> str:
    """The rows of another benchmark; a column of one row alone is a part of it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return table(names, [[shown(row.get(name, "")) for name in names] for row in rows])


def table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def cell_table(rates: Rates) -> str:
    """The variants of a cell, from the fastest on."""
    peer = best(rates, is_peer) or best(rates, is_ours)
    rows = []
    for who in sorted(rates, key=lambda who: -statistics.median(rates[who])):
        if who == PEAK:
            continue
        share = f"{ratio(rates[who], rates[PRODUCTS])[0]:.2f}" if PRODUCTS in rates else ""
        against = text_of(ratio(rates[who], rates[peer])) if peer and who != PRODUCTS else ""
        rows.append([who, f"{statistics.median(rates[who]):,.1f}", against, "" if who == PRODUCTS else share])
    return table(["variant", "images/s", f"ratio to {peer}", "share of products only"], rows)


def goal_rows(results: dict) -> list[list[Any]]:
    """Each goal for training steps with its figure."""

    def rates_of(work: str, precision: str) -> Rates:
        found = results.get(Cell(work, precision, GOAL_THREADS).title, {})
        return found.get("rates", {}).get("train", {})

    rows: list[list[Any]] = []

    def add(name: str, goal: float, rates: Rates, ours: str | None, theirs: str | None) -> None:
        if ours in rates and theirs in rates:
            found = ratio(rates[ours], rates[theirs])
            answer = "yes" if found[0] >= goal else "**no**"
            rows.append([name, f"{ours} / {theirs}", goal, text_of(found), answer])

    for work, goals in {"heads16": (1.2, 1.2), "defect": (1.2, 1.2), "ti16": (1.0, 1.3)}.items():
        for precision, goal in zip(("float32", "bfloat16"), goals, strict=True):
            rates = rates_of(work, precision)
            name = f"best of ours / best peer: {WORKS[work].name}, {precision}"
            add(name, goal, rates, best(rates, is_ours), best(rates, is_peer))
    # The best precision of ours against the best of the peers: users choose the faster one.
    rates = rates_of("heads16", "float32")
    for backend, goal in {"jax": 2.0, "torch": 1.5, "tensorflow": 1.15}.items():
        add("ours / KerasHub, head width 16", goal, rates, f"ours {backend}", f"keras-hub {backend}")
    add("share of products only, head width 16", 0.6, rates, best(rates, is_ours), PRODUCTS)
    add("batch 1 on torch", 1.0, rates_of("batch1", "float32"), "ours torch", "vit-pytorch")
    return rows + latency_goals(results) + command_goals(results)


def goal(name: str, variants: str, wanted: float, reached: float, met: bool) -> list[Any]:
    return [name, variants, wanted, f"{reached:.3g}", "yes" if met else "**no**"]


def latency_goals(results: dict) -> list[list[Any]]:
    rows = results.get("latency", {}).get("rows", [])
    way = "keras_vit.predict"
    shares = {row["cores"]: 1 / row["ratio"] for row in rows if row["name"] == way}
    return [
        goal(
            f"one image in a process, images per second, {cores} core{'s' * (cores > 1)}",
            f"{way} / onnxruntime",
            0.5,
            share,
            share >= 0.5,
        )
        for cores, share in shares.items()
    ]


def command_goals(results: dict) -> list[list[Any]]:
    """Of the two commands that the goals name: seconds of the process, and the accuracy that they reach."""
    rows = results.get("commands", {}).get("rows", [])
    first = {row["package"]: row for row in rows if row["command"] == FIRST}
    tuned = sorted((row for row in rows if row["command"] == FINETUNE), key=lambda row: row["wall_s"])
    goals = []
    if BEFORE in first:
        part = first[NOW]["wall_s"] / first[BEFORE]["wall_s"]
        goals.append(goal(f"{FIRST}, seconds", "now / before", 0.5, part, part <= 0.5))
    if NOW in first:
        reached = first[NOW]["accuracy"]
        goals.append(goal(f"{FIRST}, share of test images right", "", 0.95, reached, reached >= 0.95))
    for fastest in tuned[:1]:
        backend, seconds, reached = (fastest[name] for name in ("backend", "wall_s", "accuracy"))
        goals.append(goal(f"{FINETUNE}, seconds", backend, 300, seconds, seconds <= 300))
        goals.append(goal(f"{FINETUNE}, share of test images right", backend, 1.0, reached, reached >= 1))
    return goals


def write_page(results: dict, page: Path, plot: Path) -> None:
    """Writes the page, and the plot beside it."""
    parts = [HEAD, f"![Ratio to the best peer]({plot.name})\n", "\n## Goals\n\n"]
    goals = goal_rows(results)
    parts.append(table(["goal", "variants", "wanted", "reached", "met"], goals))
    missed = [name for name, *_, met in goals if met != "yes"]
    reasons = [f"- {part}: {why}" for part, why in REASONS.items() if any(part in name for name in missed)]
    parts.append("\n".join(["\nWhy not:\n", *reasons, ""]) if reasons else "")
    for cell in CELLS:
        found = results.get(cell.title)
        if found is None:
            continue
        parts.append(f"\n## {cell.title}\n")
        peak = found["rates"].get("train", {}).get(PEAK)
        if peak:
            parts.append(f"\n{found['date']}; matmul peak of torch {statistics.median(peak):,.0f} GFLOP/s.\n")
        for what, rates in found["rates"].items():
            if rates:
                parts.append(f"\n{WHAT[what].capitalize()}, batch {WORKS[cell.work].batch}:\n\n")
                parts.append(cell_table(rates))
        parts += [f"\n{who} failed: {error}\n" for who, error in found["failed"].items()]
    for name, found in results.items():
        if found.get("rows"):
            parts.append(f"\n## {name.capitalize()}\n\n{found['date']}.\n\n")
            parts.append(rows_table(found["rows"]))
    machines = sorted({found["machine"] for found in results.values()})
    parts.append("\n## Machine\n\n" + "\n".join(f"- {one}" for one in machines) + "\n")
    page.write_text("".join(parts))
    draw(results, plot)


def draw(results: dict, path: Path) -> None:
    """Training of each variant beside the best peer, one row per cell."""
    from matplotlib.figure import Figure

    cells = [cell for cell in CELLS if results.get(cell.title, {}).get("rates", {}).get("train")]
    cells = [cell for cell in cells if best(results[cell.title]["rates"]["train"], is_peer)]
    figure = Figure(figsize=(9, 1.2 + 0.5 * len(cells)), layout="constrained")
    axes = figure.subplots()
    colours = {"ours tensorflow": "tab:orange", "ours jax": "tab:blue", "ours torch": "tab:red"}
    for row, cell in enumerate(cells):
        rates = results[cell.title]["rates"]["train"]
        base = rates[best(rates, is_peer)]
        for who in rates:
            if who in (PEAK, PRODUCTS):
                continue
            middle, low, high = ratio(rates[who], base)
            axes.plot([low, high], [row, row], color=colours.get(who, "0.7"), linewidth=2)
            label = who if is_ours(who) else "other packages"
            style = dict(color=colours.get(who, "0.5"), marker="o" if is_ours(who) else "|", markersize=9)
            axes.plot(middle, row, linestyle="", label=label, **style)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(cells)), [cell.title for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.minorticks_off()
    ticks = [0.1, 0.2, 0.5, 1, 2]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel("training images per second, relative to the best peer (more is better)")
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4)
    figure.savefig(path, dpi=120)
