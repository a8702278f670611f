"""A search as one HTML page: no network, no script, plots inside it."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_vit.evaluation import search_analysis as analysis
from keras_vit.evaluation.search_analysis import Effect, Hyperparameter
from keras_vit.evaluation.trials import SearchRecord, TrialRecord
from keras_vit.report import search_plots as plots
from keras_vit.report.run import UNKNOWN, count, duration, groups, percent, template, words

LABELS = {"num_heads": "heads", "mlp_ratio": "MLP ratio"}

# What is held of each in general: the search measures it for these images, or does not.
WHY = {
    "learning_rate": (
        "Too low, and the epochs end before training has got far; too high, and it jumps about or "
        "diverges. The best one goes with the batch size and the optimizer."
    ),
    "batch_size": (
        "Small batches give more steps an epoch, with more noise, which can generalise better; large ones"
        " use the hardware better and usually want a higher learning rate."
    ),
    "patch_size": (
        "Smaller patches show finer detail and make more tokens; the cost of attention grows with the "
        "square of their number."
    ),
    "dim": (
        "A wider model can tell more apart; its cost grows with the square of the width, and with few "
        "images it learns them by heart sooner."
    ),
    "depth": (
        "Each block can build on what the one before found; deeper models are slower and harder to train "
        "on few images."
    ),
    "num_heads": (
        "More heads look at more relations at once, but share the width: each of them becomes narrower."
    ),
    "epochs": (
        "More passes fit the images better, up to where the model learns them by heart; the learning rate"
        " comes down only towards the end of the longest trial."
    ),
    "mlp_ratio": (
        "Most of a block's parameters are in its MLP: a wider one can hold more, and costs as much more."
    ),
    "stem": (
        "Convolutions before the first block bring neighbouring pixels together, which a transformer must"
        " otherwise learn from the images; with few images that helps."
    ),
    "drop_path_rate": (
        "Leaving out branches at random keeps deep models from learning few images by heart; small models"
        " and short trainings have little need of it."
    ),
    "weight_decay": (
        "Small weights make smoother functions, which generalise better; too much of it and the model "
        "cannot fit."
    ),
    "augmentation": (
        "Changed copies stand in for images that are missing; changes that blur what tells the classes "
        "apart do harm, and short trainings profit less."
    ),
}
STUDY = ("learning_rate", "batch_size", "patch_size", "dim", "depth", "num_heads", "epochs")

STATUS = {"COMPLETED": "done", "FAILED": "failed", "RUNNING": "running", "INVALID": "to be tried again"}
COSTS = ("parameters", "mult-adds", "time")
TOLD_ELSEWHERE = (
    *("space", "searched", "space_fields", "data", "versions", "command", "baseline", "wall_seconds"),
    *("validation_images", "frozen"),
)


def render_search_report(record: SearchRecord, *, final: dict[str, Any] | None) -> str:
    """The page of a search, as text to be written in UTF-8.

    Args:
        record: the search; it may be under way still. Of its `config`, `searched` (names of fields) is
            needed. Told as far as there: `space`, `space_fields` (for each field its `low`, `high`, `log`, or
            its `values`, or the value that it is frozen at), `validation_images`, `baseline` (`name`,
            `score`, `epochs`), `data` (`source`, `class_names`, `counts`), `wall_seconds`, `versions`,
            `command`, and whatever more.
        final: the best point trained anew and judged on the test images: `accuracy`; then as far as there
            is, `accuracy_interval`, `correct`, `images`, `epochs`, `trained_on`, `run`. `None` before that.
    """
    trials = analysis.scored(record.trials)
    best = analysis.best_trial(trials)
    searched = analysis.hyperparameters(record)
    marks = plots.shades([trial.epochs for trial in trials])
    measured = analysis.effects(trials, searched)
    images = record.config.get("validation_images")
    return template("search").render(
        config=record.config,
        data=record.config.get("data") or {},
        best=best,
        done=len(trials),
        searched=searched,
        best_values=[(label(name), value(best.values.get(name))) for name in best.values] if best else [],
        judged=analysis.validation_score(best, images) if best else None,
        final=final,
        progress=progress(record),
        baseline=baseline_sentence(record),
        study=study(record, best, searched, measured),
        comparisons=len(measured),
        fewest=analysis.FEWEST_IN_LEVEL,
        false_share=analysis.FALSE_SHARE,
        parallel=plots.parallel_coordinates(trials, searched, best, label) if best and searched else None,
        legend=legend(marks, trials),
        scatters=[(label(h.name), plots.effect(h, trials, marks, label(h.name))) for h in searched if best],
        **importance_parts(trials, searched),
        **pareto_parts(record, trials, marks),
        brackets=brackets(trials),
        rungs=analysis.rungs(record.trials),
        facts=settings(record.config),
        space=space_rows(record.config),
        rows=trial_rows(record, searched),
    )


def label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))


def value(given: Any) -> str:
    """A hyperparameter's value, rounded to be read."""
    if given is None:
        return UNKNOWN
    if isinstance(given, int) and abs(given) >= 10_000:
        return count(given)
    return f"{given:.3g}" if isinstance(given, float) else words(given)


def together(*parts: str) -> str:
    """Words that stay on one line."""
    return "\u00a0".join(parts).replace(" ", "\u00a0")


def space_rows(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What may be chosen of each hyperparameter; and the rest of the space, as far as it is set."""
    fields = config.get("space_fields") or {}
    return [(label(name), chosen_from(name, of)) for name, of in fields.items() if of is not None]


def chosen_from(name: str, of: Any) -> str:
    if not isinstance(of, Mapping):
        return f"frozen at {value(of)}" if name in WHY and name != "epochs" else value(of)
    if "values" in of:
        return " or ".join(value(choice) for choice in of["values"])
    scale = ", equal factors equally likely" if of.get("log") else ""
    return f"{value(of.get('low'))} to {value(of.get('high'))}{scale}"


def progress(record: SearchRecord) -> list[tuple[str, str]]:
    """How far the search is and what it took."""
    statuses = [trial.status for trial in record.trials]
    seconds = [trial.seconds for trial in record.trials if analysis.known(trial.seconds)]
    told = [
        ("trials done", count(statuses.count("COMPLETED"))),
        ("trials failed", count(statuses.count("FAILED"))),
    ]
    under_way = len(statuses) - statuses.count("COMPLETED") - statuses.count("FAILED")
    if under_way:
        told.append(("trials under way", count(under_way)))
    told.append(("in training", duration(sum(seconds)) if seconds else UNKNOWN))
    if analysis.known(record.config.get("wall_seconds")):
        told.append(("from begin to end", duration(record.config["wall_seconds"])))
    return told


def baseline_sentence(record: SearchRecord) -> str | None:
    """Whether the search found better than what was known before, at the same epochs; `None` without that."""
    baseline = record.config.get("baseline") or {}
    if not analysis.known(baseline.get("score")):
        return None
    name, score, epochs = baseline.get("name", "The baseline"), baseline["score"], baseline.get("epochs")
    rival, number = analysis.baseline_rival(record)
    if rival is None:
        return (
            f"At {epochs} epochs, {name} has a validation accuracy of {percent(score)}; no trial of as many "
            "is done, so there is nothing to compare it with."
        )
    verdict = f"{compared(rival.score - score)} {name} ({percent(score)})"
    told = f"At {epochs} epochs the best trial found, {rival.trial_id}, {verdict} on the validation images."
    images = record.config.get("validation_images")
    if images:
        low, high = analysis.validation_score(rival, images)["accuracy_interval"]
        inside = low <= score <= high
        told += (
            f" With {count(images)} images its range goes from {percent(low)} to {percent(high)}; "
            f"{name} lies " + ("within it, so the two are not told apart." if inside else "outside it.")
        )
    if number > 1:
        told += (
            f" It is the best of {number} trials of {epochs} epochs, chosen by its score on these same "
            "images, so its score is optimistic."
        )
    return told


def compared(difference: float) -> str:
    """0.012 as "beats by 1.2 points"."""
    points = f"{100 * abs(difference):.1f}\u00a0points"
    if abs(difference) < 5e-4:
        return "is no better and no worse than"
    return f"is {points} better than" if difference > 0 else f"does not beat, and is {points} below,"


def study(
    record: SearchRecord,
    best: TrialRecord | None,
    searched: Sequence[Hyperparameter],
    measured: Sequence[Effect],
) -> list[dict[str, Any]]:
    """A row for each hyperparameter: value, effect, and why."""
    names = [h.name for h in searched]
    fields = record.config.get("space_fields") or {}
    rows = []
    for name in [*STUDY, *(name for name in names if name not in STUDY)]:
        if name == "epochs":
            found = value(best.epochs) if best else UNKNOWN
            effect = gain_lines(record.trials)
        else:
            frozen = None if isinstance(fields.get(name), Mapping) else fields.get(name)
            found = value(best.values.get(name, frozen) if best else None if name in names else frozen)
            effect = effect_lines(name, measured) if name in names else ["frozen: not searched"]
        rows.append({"name": label(name), "best": found, "effect": effect, "why": WHY.get(name, "")})
    return rows


def effect_lines(name: str, measured: Sequence[Effect]) -> list[str]:
    """What was measured of one hyperparameter: first what stands out, then the rest in short."""
    own = [effect for effect in measured if effect.name == name]
    if not own:
        return ["too few trials to tell"]
    told = [effect_line([effect]) for effect in own if effect.significant]
    rest = [effect for effect in own if not effect.significant]
    if not rest:
        return told
    if told:
        return [*told, f"not told apart: {effect_line(rest)}"]
    return ["not told apart by this search", effect_line(rest)]


def effect_line(own: Sequence[Effect]) -> str:
    """One effect, or the same one at several numbers of epochs."""
    sizes = [signed(e.size, 2) if e.best is None else over(e) for e in own]
    units = ["\u00a0epoch" if own[0].epochs == 1 else "\u00a0epochs", *[""] * len(own)]
    trials = ["\u00a0trials", *[""] * len(own)]
    parts = [
        f"{size} at\u00a0{effect.epochs}{unit} ({effect.trials}{word})"
        for size, effect, unit, word in zip(sizes, own, units, trials, strict=False)
    ]
    kind = "rank correlation" if own[0].best is None else "difference of medians:"
    return f"{kind} {', '.join(parts)}"


def over(effect: Effect) -> str:
    best, worst = value(effect.best), value(effect.worst)
    return f"{best} over {worst} by {100 * effect.size:.1f}\u00a0points"


def gain_lines(trials: Sequence[TrialRecord]) -> list[str]:
    """What more epochs gave those that were promoted."""
    return [
        f"{signed(100 * gain, 1)}\u00a0points in the median from {before} to {epochs_words(after)}, "
        f"{pairs} promoted {'trial' if pairs == 1 else 'trials'}"
        for before, after, pairs, gain in analysis.epoch_gains(trials)
    ] or ["not measured: no promoted trial is done"]


def signed(number: float, digits: int) -> str:
    """With + or a true minus sign; nothing has none."""
    rounded = round(number, digits)
    return f"{rounded:+.{digits}f}".replace("-", "\u2212") if rounded else f"{0:.{digits}f}"


def epochs_words(number: int) -> str:
    return f"{number}\u00a0epoch" + ("" if number == 1 else "s")


def legend(marks: plots.Shades, trials: Sequence[TrialRecord]) -> list[tuple[str, str, str, int]]:
    """(colour, sign, words, trials) for each number of epochs."""
    level = analysis.levels(trials)
    return [(colour, sign, epochs_words(n), len(level[n])) for n, (colour, _, sign) in marks.items()]


def importance_parts(trials: Sequence[TrialRecord], searched: Sequence[Hyperparameter]) -> dict[str, Any]:
    told = analysis.importance(trials, searched)
    return {
        "importance": told,
        "importance_plot": plots.importances(told.shares, label) if told.shares else None,
        "share_of_epochs": analysis.share_of_epochs(trials),
        "fewest_trials": analysis.FEWEST_TRIALS,
        "fewest_points": analysis.FEWEST_POINTS,
        "fewest_r2": analysis.LEAST_R2,
    }


def pareto_parts(record: SearchRecord, trials: Sequence[TrialRecord], marks: plots.Shades) -> dict[str, list]:
    """The plots, and a row for each trial on a front."""
    seconds = analysis.total_seconds(record.trials)
    costs = {
        "parameters": [trial.parameters for trial in trials],
        "mult-adds": [trial.mult_adds for trial in trials],
        "time": [seconds[trial.trial_id] for trial in trials],
    }
    costs = {name: [c if c and analysis.known(c) else None for c in column] for name, column in costs.items()}
    scores = [trial.score for trial in trials]
    fronts = {name: analysis.pareto_front(column, scores) for name, column in costs.items()}
    drawn = [
        (name, plots.pareto(name, column, trials, fronts[name], marks, time=name == "time"))
        for name, column in costs.items()
        if fronts[name]
    ]
    rows = [
        {
            "trial": trial,
            "seconds": spent(seconds[trial.trial_id]),
            "of": [n for n in COSTS if i in fronts[n]],
        }
        for i, trial in enumerate(trials)
        if any(i in front for front in fronts.values())
    ]
    return {"pareto": drawn, "front": sorted(rows, key=lambda row: -row["trial"].score)}


def spent(seconds: float | None) -> str:
    return duration(seconds) if analysis.known(seconds) else UNKNOWN


def brackets(trials: Sequence[TrialRecord]) -> list[tuple[str, str]]:
    """A title and a picture for each bracket, the one of the shortest trials first."""
    drawn = []
    span = (min(t.score for t in trials), max(t.score for t in trials)) if trials else (0.0, 1.0)
    for number in sorted({trial.bracket for trial in trials}, reverse=True):
        members = [trial for trial in trials if trial.bracket == number]
        drawn.append((f"Bracket {number}", plots.bracket(f"Bracket {number}", members, trials, span)))
    return drawn


def settings(config: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """What is told of the search besides the space and the data, as titled lists of (name, text)."""
    return groups({key: given for key, given in config.items() if key not in TOLD_ELSEWHERE})


def trial_rows(record: SearchRecord, searched: Sequence[Hyperparameter]) -> list[dict[str, Any]]:
    """All trials, the best first, those without an accuracy last."""
    scored = sorted(analysis.scored(record.trials), key=lambda trial: -trial.score)
    others = [trial for trial in record.trials if trial not in scored]
    return [
        {
            "trial": trial,
            "status": STATUS.get(trial.status, trial.status.lower()),
            "seconds": spent(trial.seconds),
            "point": ", ".join(together(label(h.name), value(trial.values.get(h.name))) for h in searched),
        }
        for trial in [*scored, *others]
    ]
