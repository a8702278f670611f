"""The files of a bundle."""

PARTS = {
    "assets.extra/labels.txt",
    "assets.extra/serving.json",
    "assets.extra/tf_serving_warmup_requests",
    "fingerprint.pb",
    "model_card.md",
    "saved_model.pb",
    "variables/variables.data-00000-of-00001",
    "variables/variables.index",
}


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
