"""The page of a search."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_vit.evaluation import search_analysis as analysis
from keras_vit.evaluation.search_analysis import Effect, Hyperparameter
from keras_vit.evaluation.trials import SearchRecord, TrialRecord, best_trial, known, scored
from keras_vit.report import search_plots as plots
from keras_vit.report.kit import UNKNOWN, count, duration, groups, percent, render, signed, words

LABELS = {"num_heads": "heads", "mlp_ratio": "MLP ratio"}

# General knowledge about each hyperparameter, which the search may or may not confirm for these images.
WHY = {
    "learning_rate": (
        "Too low, and the training does not get far enough; too high, and it oscillates or diverges. The "
        "best value depends on the batch size and the optimizer."
    ),
    "batch_size": (
        "Small batches give more steps per epoch, with more noise, which can generalise better; large "
        "batches use the hardware better and usually need a higher learning rate."
    ),
    "patch_size": (
        "Smaller patches show finer detail and make more tokens; the cost of attention grows with the square "
        "of their number."
    ),
    "dim": (
        "A wider model can distinguish more; its cost grows with the square of the width, and with few "
        "images it overfits sooner."
    ),
    "depth": (
        "Each block builds on the output of the block before it; deeper models are slower and harder to "
        "train on few images."
    ),
    "num_heads": (
        "More heads attend to more relations at once, but share the width: each head becomes narrower."
    ),
    "epochs": (
        "More epochs fit the images better, until the model overfits; the learning rate decreases only "
        "towards the end of the longest trial."
    ),
    "mlp_ratio": (
        "Most parameters of a block are in its MLP: a wider MLP has more capacity, and costs as much more."
    ),
    "stem": (
        "Convolutions before the first block combine neighbouring pixels, which a transformer must otherwise "
        "learn from the images; that helps with few images."
    ),
    "drop_path_rate": (
        "Dropping residual branches at random keeps deep models from overfitting few images; small models "
        "and short trainings have little need of it."
    ),
    "weight_decay": (
        "Small weights make smoother functions, which generalise better; with too much of it, the model "
        "underfits."
    ),
    "layer_decay": (
        "The lower blocks of published weights find edges and textures, which serve other images too: they "
        "need smaller changes than the upper ones. At 1, all blocks have the same learning rate."
    ),
    "unfrozen_share": (
        "Frozen blocks keep what they have learned from many images; blocks that are trained adapt to these. "
        "With few or familiar images, fewer blocks suffice."
    ),
    "lora_rank": (
        "A higher rank lets the kernels change in more directions, and costs as many more weights to store; "
        "small ranks suffice if the images are like those of the published weights."
    ),
    "augmentation": (
        "Transformed copies stand in for missing images; transformations that hide the differences between "
        "classes do harm, and short trainings profit less."
    ),
}
STUDY = ("learning_rate", "batch_size", "patch_size", "dim", "depth", "num_heads", "epochs")

STATUS = {"COMPLETED": "done", "FAILED": "failed", "RUNNING": "running", "INVALID": "to be retried"}
SHOWN_ELSEWHERE = (
    *("space", "searched", "space_fields", "data", "versions", "command", "baseline", "wall_seconds"),
    *("validation_images", "frozen"),
)


def render_search_report(record: SearchRecord, *, final: dict[str, Any] | None) -> str:
    """The page of a search, as text to be written in UTF-8.

    Args:
        record: The search, which may still be running. Its `config` needs `searched` (names of fields).
            Optional: `space`, `space_fields` (for each field its `low`, `high`, `log`, or its `values`, or
            the value that it is frozen at), `validation_images`, `baseline` (`name`, `score`, `epochs`),
            `data` (`source`, `class_names`, `counts`), `wall_seconds`, `versions`, `command`. Other keys are
            shown too.
        final: The best point, retrained and evaluated on the test images: `accuracy`, and optionally
            `accuracy_interval`, `correct`, `images`, `epochs`, `trained_on`, `run`. `None` before that.
    """
    trials = scored(record.trials)
    best = best_trial(trials)
    searched = analysis.hyperparameters(record)
    marks = plots.epoch_marks([trial.epochs for trial in trials])
    measured = analysis.effects(trials, searched)
    images = record.config.get("validation_images")
    return render(
        "search",
        config=record.config,
        data=record.config.get("data") or {},
        best=best,
        done=len(trials),
        searched=searched,
        best_values=[(label(name), value(best.values.get(name))) for name in best.values] if best else [],
        validation=analysis.validation_score(best, images) if best else None,
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
        settings=settings(record.config),
        space=space_rows(record.config),
        rows=trial_rows(record, searched),
    )


def label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))


def value(given: Any) -> str:
    """A hyperparameter's value, rounded for reading."""
    if given is None:
        return UNKNOWN
    if isinstance(given, int) and abs(given) >= 10_000:
        return count(given)
    return f"{given:.3g}" if isinstance(given, float) else words(given)


def together(*parts: str) -> str:
    """Words that stay on one line."""
    return "\u00a0".join(parts).replace(" ", "\u00a0")


def points(difference: float) -> str:
    """0.012 as "1.2 points"."""
    return f"{100 * difference:.1f}\u00a0points"


def space_rows(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The allowed values of each hyperparameter, and the other fields of the space that are set."""
    fields = config.get("space_fields") or {}
    return [(label(name), allowed(name, field)) for name, field in fields.items() if field is not None]


def allowed(name: str, field: Any) -> str:
    """The allowed values of a field of the space."""
    if not isinstance(field, Mapping):
        return f"frozen at {value(field)}" if name in WHY and name != "epochs" else value(field)
    if "values" in field:
        return " or ".join(value(choice) for choice in field["values"])
    scale = ", log-uniform" if field.get("log") else ""
    return f"{value(field.get('low'))} to {value(field.get('high'))}{scale}"


def progress(record: SearchRecord) -> list[tuple[str, str]]:
    """How far the search is and how long it took."""
    statuses = [trial.status for trial in record.trials]
    seconds = [trial.seconds for trial in record.trials if known(trial.seconds)]
    rows = [
        ("trials done", count(statuses.count("COMPLETED"))),
        ("trials failed", count(statuses.count("FAILED"))),
    ]
    open_trials = len(statuses) - statuses.count("COMPLETED") - statuses.count("FAILED")
    if open_trials:
        rows.append(("trials in progress", count(open_trials)))
    rows.append(("training time", duration(sum(seconds)) if seconds else UNKNOWN))
    if known(record.config.get("wall_seconds")):
        rows.append(("total time", duration(record.config["wall_seconds"])))
    return rows


def baseline_sentence(record: SearchRecord) -> str | None:
    """The best trial compared with the baseline at the same epochs; `None` without a baseline."""
    baseline = record.config.get("baseline") or {}
    if not known(baseline.get("score")):
        return None
    name, score, epochs = baseline.get("name", "The baseline"), baseline["score"], baseline.get("epochs")
    rival, number = analysis.baseline_rival(record)
    if rival is None:
        return (
            f"At {epochs} epochs, {name} has a validation accuracy of {percent(score)}; no trial of as many "
            "epochs is done, so there is nothing to compare it with."
        )
    verdict = f"{compared(rival.accuracy - score)} {name} ({percent(score)})"
    text = f"At {epochs} epochs, the best trial, {rival.trial_id}, {verdict} on the validation images."
    images = record.config.get("validation_images")
    if images:
        low, high = analysis.validation_score(rival, images)["accuracy_interval"]
        where = "inside it, so the difference is not significant" if low <= score <= high else "outside it"
        text += (
            f" With {count(images)} images, its range goes from {percent(low)} to {percent(high)}; "
            f"{name} lies {where}."
        )
    if number > 1:
        text += (
            f" It is the best of {number} trials of {epochs} epochs, chosen by its score on these same "
            "images, so its score is optimistic."
        )
    return text


def compared(difference: float) -> str:
    """0.012 as "is 1.2 points better than"."""
    if abs(difference) < 5e-4:
        return "is no better and no worse than"
    return f"is {points(abs(difference))} {'better' if difference > 0 else 'worse'} than"


def study(
    record: SearchRecord,
    best: TrialRecord | None,
    searched: Sequence[Hyperparameter],
    measured: Sequence[Effect],
) -> list[dict[str, Any]]:
    """One row per hyperparameter: best value, effect, and why."""
    names = [h.name for h in searched]
    fields = record.config.get("space_fields") or {}
    rows = []
    of_space = [name for name in STUDY if not fields or name in fields or name == "epochs"]
    for name in [*of_space, *(name for name in names if name not in STUDY)]:
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
    """The effects of one hyperparameter: first the significant ones, then the others in short."""
    own = [effect for effect in measured if effect.name == name]
    if not own:
        return ["too few trials to measure"]
    significant = [effect_line([effect]) for effect in own if effect.significant]
    rest = [effect for effect in own if not effect.significant]
    if not rest:
        return significant
    if significant:
        return [*significant, f"not significant: {effect_line(rest)}"]
    return ["not significant in this search", effect_line(rest)]


def effect_line(own: Sequence[Effect]) -> str:
    """An effect at one or several numbers of epochs. Units are written for the first one only."""
    parts = []
    for i, effect in enumerate(own):
        size = signed(effect.size, 2) if effect.best is None else over(effect)
        epochs, trials = (str(effect.epochs), "") if i else (epochs_words(effect.epochs), "\u00a0trials")
        parts.append(f"{size} at\u00a0{epochs} ({effect.trials}{trials})")
    kind = "rank correlation" if own[0].best is None else "difference of medians:"
    return f"{kind} {', '.join(parts)}"


def over(effect: Effect) -> str:
    """Which choice is better than which, and by how much."""
    return f"{value(effect.best)} over {value(effect.worst)} by {points(effect.size)}"


def gain_lines(trials: Sequence[TrialRecord]) -> list[str]:
    """The gain of promoted trials from more epochs."""
    return [
        f"median gain {signed(100 * gain, 1)}\u00a0points from {before} to {epochs_words(after)} "
        f"({pairs} promoted {'trial' if pairs == 1 else 'trials'})"
        for before, after, pairs, gain in analysis.epoch_gains(trials)
    ] or ["not measured: no promoted trial is done"]


def epochs_words(number: int) -> str:
    return f"{number}\u00a0epoch" + ("" if number == 1 else "s")


def legend(marks: plots.EpochMarks, trials: Sequence[TrialRecord]) -> list[tuple[str, str, str, int]]:
    """(colour, sign, words, trials) for each number of epochs."""
    level = analysis.levels(trials)
    return [(colour, sign, epochs_words(n), len(level[n])) for n, (colour, _, sign) in marks.items()]


def importance_parts(trials: Sequence[TrialRecord], searched: Sequence[Hyperparameter]) -> dict[str, Any]:
    """The importances and their plot, with the limits below which there are none."""
    importance = analysis.importance(trials, searched)
    return {
        "importance": importance,
        "importance_plot": plots.importances(importance.shares, label) if importance.shares else None,
        "share_of_epochs": analysis.share_of_epochs(trials),
        "fewest_trials": analysis.FEWEST_TRIALS,
        "fewest_points": analysis.FEWEST_POINTS,
        "least_r2": analysis.LEAST_R2,
    }


def pareto_parts(
    record: SearchRecord, trials: Sequence[TrialRecord], marks: plots.EpochMarks
) -> dict[str, list]:
    """The plots, and one row per trial on a front."""
    seconds = analysis.total_seconds(record.trials)
    costs: dict[str, list[float | None]] = {
        "parameters": [trial.parameters for trial in trials],
        "mult-adds": [trial.mult_adds for trial in trials],
        "time": [seconds[trial.trial_id] for trial in trials],
    }
    costs = {name: [c if c and known(c) else None for c in column] for name, column in costs.items()}
    if "recipe" in record.config:  # published weights: all trials have the same model
        del costs["parameters"], costs["mult-adds"]
    scores = [trial.accuracy for trial in trials]
    fronts = {name: analysis.pareto_front(column, scores) for name, column in costs.items()}
    drawn = [
        (name, plots.pareto(name, column, trials, fronts[name], marks, time=name == "time"))
        for name, column in costs.items()
        if fronts[name]
    ]
    on_a_front = [
        (trial, [name for name, front in fronts.items() if i in front]) for i, trial in enumerate(trials)
    ]
    rows = [
        {"trial": trial, "seconds": spent(seconds[trial.trial_id]), "of": names}
        for trial, names in sorted(on_a_front, key=lambda row: -row[0].accuracy)
        if names
    ]
    return {"pareto": drawn, "front": rows}


def spent(seconds: float | None) -> str:
    return duration(seconds) if known(seconds) else UNKNOWN


def brackets(trials: Sequence[TrialRecord]) -> list[tuple[str, str]]:
    """A title and a plot per bracket, the bracket with the shortest trials first."""
    scores = [trial.accuracy for trial in trials] or [0.0, 1.0]
    span = min(scores), max(scores)
    drawn = []
    for number in sorted({trial.bracket for trial in trials}, reverse=True):
        members = [trial for trial in trials if trial.bracket == number]
        drawn.append((f"Bracket {number}", plots.bracket(f"Bracket {number}", members, trials, span)))
    return drawn


def settings(config: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The settings of the search, except the space and the data, as titled lists of (name, text)."""
    return groups({key: given for key, given in config.items() if key not in SHOWN_ELSEWHERE})


def trial_rows(record: SearchRecord, searched: Sequence[Hyperparameter]) -> list[dict[str, Any]]:
    """All trials, the best first, those without an accuracy last."""
    ranked = sorted(scored(record.trials), key=lambda trial: -trial.accuracy)
    others = [trial for trial in record.trials if trial not in ranked]
    return [
        {
            "trial": trial,
            "status": STATUS.get(trial.status, trial.status.lower()),
            "seconds": spent(trial.seconds),
            "point": ", ".join(together(label(h.name), value(trial.values.get(h.name))) for h in searched),
        }
        for trial in [*ranked, *others]
    ]
