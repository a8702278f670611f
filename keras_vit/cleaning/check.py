"""Everything that `keras-vit audit` looks at, in order, and what it found."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.cleaning import issues as kinds
from keras_vit.cleaning.issues import Issue
from keras_vit.data.audit import Audit, Audited, audit_split
from keras_vit.data.image_set import ImageSet
from keras_vit.data.quality import KINDS, find_flaws
from keras_vit.data.shortcuts import Shortcut, find_shortcuts
from keras_vit.data.sources import load_image_set
from keras_vit.data.targets import same_labels
from keras_vit.errors import InputError
from keras_vit.evaluation.outliers import FAR, find_outliers
from keras_vit.evaluation.wrong_labels import FOLDS, find_wrong, require_cleanlab
from keras_vit.text import shown
from keras_vit.training.config import NONE, TrainConfig

LISTED = 10
"""Lines per finding in the printed table."""


@dataclass(frozen=True)
class Checked:
    """What an audit found. `str(checked)` is a table for people, `to_dict()` is ready for JSON.

    Args:
        image_set: the images.
        audited: counts, sizes, duplicates, and how the files were read.
        issues: on single images, the surest first.
        shortcuts: what tells the class beside the content.
        judged: how the labels were judged, or `None`.
        skipped: check -> why it was not made, or not for all images.
    """

    image_set: ImageSet
    audited: Audited
    issues: tuple[Issue, ...]
    shortcuts: tuple[Shortcut, ...]
    judged: str | None
    skipped: dict[str, str]

    @property
    def audit(self) -> Audit:
        return self.audited.audit

    def of_kind(self, kind: str) -> list[Issue]:
        """The issues of one kind, the surest first."""
        return [issue for issue in self.issues if issue.kind == kind]

    def to_dict(self) -> dict[str, Any]:
        """The audit as `Audit.to_dict` gives it, and `issues`, `shortcuts`, `labels_judged_by`, `skipped`."""
        return {
            **self.audit.to_dict(),
            "issues": [self._row(issue) for issue in self.issues],
            "shortcuts": [dataclasses.asdict(found) for found in self.shortcuts],
            "labels_judged_by": self.judged,
            "skipped": self.skipped,
        }

    def _row(self, issue: Issue) -> dict[str, Any]:
        names = self.image_set.class_names
        return {
            "path": self.image_set.names[issue.position],
            "kind": issue.kind,
            "score": round(issue.score, 4),
            "text": issue.text,
            "suggested": None if issue.suggested is None else names[issue.suggested],
        }

    def summary(self) -> list[str]:
        """Sentences on the whole set, for the top of the page."""
        audit, found = self.audit, len({issue.position for issue in self.issues})
        lines = [f"{audit.images:,} images in {len(audit.classes)} classes, {found:,} with a finding."]
        lines += [f"Largest class / smallest class: {audit.imbalance:.3g}."]
        for cue in self.shortcuts:
            if cue.telling:
                told = _cue_in_words(cue).partition("  <")[0]
                lines.append(f"Shortcut: {cue.name} alone tells the class with an AUC of {told}.")
        if self.judged:
            lines.append(f"Labels were judged by {self.judged}.")
        return lines + [f"Not checked: {check}: {why}." for check, why in self.skipped.items()]

    def __str__(self) -> str:
        return "\n".join([str(self.audit), *map(shown, self._lines())])

    def _lines(self) -> Iterator[str]:
        for kind in KINDS:
            if kind in self.skipped:
                continue
            found = self.of_kind(kind)
            if found:
                yield f"  {kind}: {len(found):,}"
                yield from self._some(found)
        if all(kind not in self.skipped for kind in KINDS) and not any(map(self.of_kind, KINDS)):
            yield f"  {', '.join(KINDS)}: none"
        if self.shortcuts:
            yield "  shortcuts, the AUC of a classifier that sees this alone (0.5: it tells nothing):"
            for cue in self.shortcuts:
                yield f"    {cue.name:10} " + _cue_in_words(cue)
        for kind in (kinds.OUTLIER, kinds.WRONG_LABEL):
            found = self.of_kind(kind)
            skipped = any(f"{kind}s" in checks for checks in self.skipped)
            if found or (self.judged if kind == kinds.WRONG_LABEL else not skipped):
                by = f" (by {self.judged})" if kind == kinds.WRONG_LABEL and self.judged else ""
                yield f"  {kind}s: {len(found) or 'none'}{by}"
                yield from self._some(found)
        for check, why in self.skipped.items():
            yield f"  not checked: {check}: {why}"

    def _some(self, found: Sequence[Issue]) -> Iterator[str]:
        for issue in found[:LISTED]:
            text = f": {issue.text}" if issue.text else ""
            yield f"    {self.image_set.names[issue.position]}{text} ({issue.score:.2f})"
        if len(found) > LISTED:
            yield f"    and {len(found) - LISTED:,} more"


def _cue_in_words(cue: Shortcut) -> str:
    if cue.auc is None or cue.classes is None:
        return f"not judged: {cue.skipped}"
    name, most = max(cue.classes.items(), key=lambda item: item[1])
    told = f", of {name} {most:.2f}" if most > 0.5 else ""
    return f"{cue.auc:.2f}{told}{'  <- tells the class' if cue.telling else ''}"


def check_images(
    config: TrainConfig,
    *,
    run: str | Path | None = None,
    from_scratch: bool = False,
) -> Checked:
    """Looks for what is wrong with images and their labels.

    Args:
        config: which images, and how they are read and split; with `init`, published weights judge labels.
        run: the folder of a run of these images, whose answers judge the labels instead.
        from_scratch: whether small models are trained now that judge them.

    Raises:
        InputError: an argument or the images cannot be used.
    """
    ways = [
        name
        for name, given in (("--run", run), ("--init", config.init != NONE), ("--from-scratch", from_scratch))
        if given
    ]
    if len(ways) > 1:
        raise InputError(f"Labels are judged in one way: give {' or '.join(ways)}.")
    if ways:
        require_cleanlab()
    image_set = load_image_set(config.data, **config.of_tables)
    audited = audit_split(
        image_set, config.seed, config.split_duplicates, config.pixel_range, config.tiff_page
    )
    skipped: dict[str, str] = {}
    found = [*_of_audit(image_set, audited)]
    try:
        found += [
            Issue(flaw.position, flaw.kind, flaw.score)
            for flaw in find_flaws(image_set.images, audited.decoding)
        ]
    except ImportError:
        why = 'needs cleanvision: pip install "keras-vit-defects[audit]"'
        skipped[", ".join(KINDS)] = why
    shortcuts: list[Shortcut] = []
    if image_set.several:
        skipped["shortcuts"] = "they are looked for where each image has one class"
    else:
        groups = _groups(image_set, audited)
        shortcuts = find_shortcuts(audited.read, image_set.labels, image_set.class_names, groups)
    more, judged = _of_answers(image_set, audited, config, run, from_scratch, skipped)
    ordered = sorted([*found, *more], key=lambda issue: (-issue.score, issue.position))
    return Checked(image_set, audited, tuple(ordered), tuple(shortcuts), judged, skipped)


def _groups(image_set: ImageSet, audited: Audited) -> np.ndarray:
    """Equal for images that show the same thing, or that the user says belong together."""
    from keras_vit.data.split import joined

    if image_set.groups is None:
        return audited.duplicates.groups
    return joined(image_set.groups, audited.duplicates.groups)


def _of_audit(image_set: ImageSet, audited: Audited) -> Iterator[Issue]:
    """Unreadable and damaged images, and duplicates."""
    place = {name: i for i, name in enumerate(image_set.names)}
    for kind, items in ((kinds.UNREADABLE, audited.audit.unreadable), (kinds.DAMAGED, audited.audit.damaged)):
        for item in items:
            yield Issue(place[item.name], kind, 1.0, item.reason)
    for group in audited.duplicates.exact:
        if same_labels(image_set.labels, group):  # the first stays, so that nobody drops all of them
            for i in group[1:]:
                yield Issue(i, kinds.COPY, 1.0, f"the same as {image_set.names[group[0]]}")
            continue
        for i in group:
            other = next(j for j in group if not same_labels(image_set.labels, [i, j]))
            yield Issue(
                i, kinds.TWO_CLASSES, 1.0, f"the same as {image_set.names[other]}{_more(len(group) - 2)}"
            )
    best: dict[int, tuple[float, int]] = {}
    number: dict[int, int] = defaultdict(int)
    for i, j, like in audited.duplicates.near:
        for one, other in ((i, j), (j, i)):
            number[one] += 1
            differs = not same_labels(image_set.labels, [one, other])
            known = best.get(one)
            if known is None or (differs, like) > (
                not same_labels(image_set.labels, [one, known[1]]),
                known[0],
            ):
                best[one] = (like, other)
    for i, (like, other) in best.items():
        differs = not same_labels(image_set.labels, [i, other])
        kind = kinds.NEAR_CLASSES if differs else kinds.NEAR
        text = f"shows the same as {image_set.names[other]}{_more(number[i] - 1)}"
        yield Issue(i, kind, min(like, 1.0), text)


def _more(number: int) -> str:
    return f" and {number:,} more" if number > 0 else ""


def _of_answers(
    image_set: ImageSet,
    audited: Audited,
    config: TrainConfig,
    run: str | Path | None,
    from_scratch: bool,
    skipped: dict[str, str],
) -> tuple[list[Issue], str | None]:
    """Outliers and probably wrong labels, and by what the labels were judged."""
    wrong, outlier = f"{kinds.WRONG_LABEL}s", f"{kinds.OUTLIER}s"
    readable = audited.read.readable
    if run is None and config.init == NONE and not from_scratch:
        why = "give --init WEIGHTS (auto downloads some), --run RUN, or --from-scratch"
        skipped[f"{outlier} and {wrong}"] = why
        return [], None
    if image_set.several:
        skipped[wrong] = "they are looked for where each image has one class"
        if run is not None or from_scratch:
            return [], None
    # Imported here: a plain audit needs neither Keras nor a model.
    from keras_vit.cleaning.answers import seen_by_run, seen_by_weights, seen_from_scratch

    groups = _groups(image_set, audited)
    if run is not None:
        seen = seen_by_run(image_set, groups, readable, run)
    elif from_scratch:
        seen = seen_from_scratch(image_set, readable, config)
    else:
        seen = seen_by_weights(image_set, groups, readable, config)
    found: list[Issue] = []
    if seen.features is None:
        skipped[outlier] = (
            "--init finds them" if seen.skipped is None or seen.probabilities is not None else "no features"
        )
    else:
        labels = (
            np.zeros(len(seen.positions), np.int64) if image_set.several else image_set.labels[seen.positions]
        )
        far = find_outliers(seen.features, labels, list(seen.columns), groups[seen.positions])
        found += [
            Issue(int(i), kinds.OUTLIER, float(min(score / (2 * FAR), 1)), "unlike all classes")
            for i, score in zip(seen.positions, far, strict=True)
            if score > FAR
        ]
    if seen.skipped:
        skipped[wrong] = seen.skipped
    if seen.probabilities is None or image_set.several:
        return found, None
    return [*found, *_wrong_labels(image_set, groups, seen.positions, seen.probabilities, skipped)], seen.how


def _wrong_labels(
    image_set: ImageSet,
    groups: np.ndarray,
    positions: np.ndarray,
    probabilities: np.ndarray,
    skipped: dict[str, str],
) -> list[Issue]:
    """Of classes that have enough images to be learned without those that are judged."""
    from keras_vit.cleaning.answers import classes_to_judge

    labels, names = image_set.labels[positions], image_set.class_names
    enough = classes_to_judge(image_set, groups, positions)
    few = [name for name, fits in zip(names, enough, strict=True) if not fits]
    if few:
        skipped["labels of " + ", ".join(few)] = f"fewer than {FOLDS} different images in a class"
    classes = np.flatnonzero(enough)
    if len(classes) < 2:
        return []
    rows = np.flatnonzero(np.isin(labels, classes))
    kept = probabilities[np.ix_(rows, classes)] + 1e-12
    suspects = find_wrong(np.searchsorted(classes, labels[rows]), kept / kept.sum(axis=1, keepdims=True))
    issues = []
    for row, quality, suggested, named in zip(
        rows, suspects.quality, suspects.suggested, suspects.named, strict=True
    ):
        if named:
            likely = int(classes[suggested])
            text = f"labelled {names[labels[row]]}, looks like {names[likely]}"
            issues.append(Issue(int(positions[row]), kinds.WRONG_LABEL, float(1 - quality), text, likely))
    return issues
