"""The folder that an audit leaves: `findings.csv`, `audit.json`, and a page where a person decides."""

from collections import defaultdict
from pathlib import Path

from keras_vit import files
from keras_vit.cleaning.check import Checked
from keras_vit.cleaning.issues import WRONG_LABEL, Issue
from keras_vit.data.origin import content_hash
from keras_vit.data.targets import label_text
from keras_vit.report.labelling import Finding, ImageToCheck, write_page
from keras_vit.text import shown

FINDINGS, AUDIT = "findings.csv", "audit.json"
COLUMNS = ("path", "sha256", "label", "suggested", "kind", "score", "text")


def write_audit(checked: Checked, folder: Path) -> None:
    """Writes the files of an audit into a folder, such as that of `labelling.new_folder`.

    Args:
        checked: what was found.
        folder: exists.

    Raises:
        OSError: the folder cannot be written.
    """
    images, names = checked.image_set, checked.image_set.class_names
    of_image: dict[int, list[Issue]] = defaultdict(list)
    for issue in checked.issues:  # the surest first
        of_image[issue.position].append(issue)
    hashes = {i: content_hash(images.original(i)) for i in of_image}
    texts = {i: label_text(images.labels, i, names) for i in of_image}
    rows = [
        {
            "path": shown(images.names[issue.position]),
            "sha256": hashes[issue.position],
            "label": texts[issue.position],
            "suggested": "" if issue.suggested is None else shown(names[issue.suggested]),
            "kind": issue.kind,
            "score": round(issue.score, 4),
            "text": shown(issue.text),
        }
        for issue in checked.issues
    ]
    files.write_csv(folder / FINDINGS, rows, COLUMNS)
    files.write_json(folder / AUDIT, checked.to_dict())
    kept = {(row["path"], row["sha256"]) for row in images.fixes if row["action"] == "keep"}
    items = []
    for i, found in of_image.items():
        suggested = next((issue.suggested for issue in found if issue.kind == WRONG_LABEL), None)
        items.append(
            ImageToCheck(
                images.names[i],
                hashes[i],
                images.original(i),
                label=texts[i],
                suggested=None if suggested is None else shown(names[suggested]),
                score=found[0].score,
                findings=tuple(Finding(issue.kind, issue.text) for issue in found),
                kept=(shown(images.names[i]), hashes[i]) in kept,
            )
        )
    lines = [line.strip() for line in checked.summary()]
    write_page(
        folder,
        items,
        title="Audit",
        source=images.source,
        class_names=names,
        several=images.several,
        decoding=checked.audited.decoding,
        lines=lines,
        fixes=images.fixes,
    )
