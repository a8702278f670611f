"""Sends damaged images to an exported model, in a process that may crash.

python -m tests.serving.fuzz_bundle FOLDER --labels A,B --seed 0 --first 0 --batches 10. Each batch
depends only on the seed and its number, so `--first N --batches 1` repeats it. Prints the number of each
batch before it is sent, and a line of JSON at the end.
"""

import argparse
import collections
import json
import resource
import sys

import numpy as np
import tensorflow as tf

from tests.serving.mutations import SEEDS, mutated

BATCH_SIZE = 32
GOOD = 2  # good images in each batch, whose answers must not change
TOLERANCE = 1e-5


def batch(seed, number):
    """The files of a batch, and the positions of the good ones: position -> index in SEEDS."""
    rng = np.random.default_rng([seed, number])
    files = [mutated(rng) for _ in range(BATCH_SIZE)]
    positions = rng.choice(BATCH_SIZE, GOOD, replace=False)
    good = {int(position): int(rng.integers(len(SEEDS))) for position in positions}
    return [SEEDS[good[i]] if i in good else content for i, content in enumerate(files)], good


def problem(answer, labels, good, expected):
    """A short description of the first wrong answer in a batch, or None."""
    probabilities, confidence = answer["probabilities"], answer["confidence"]
    if len(probabilities) != BATCH_SIZE:
        return f"{len(probabilities)} rows"
    for i, row in enumerate(probabilities):
        is_blank = not row.any()
        label = b"" if is_blank else labels[row.argmax()]
        if not np.isfinite(row).all():
            return f"row {i} is not finite"
        if not is_blank and (row.min() < 0 or abs(row.sum() - 1) > TOLERANCE):
            return f"row {i} is not a distribution: {row}"
        if answer["label"][i] != label or confidence[i] != row.max():
            return f"row {i} says {answer['label'][i]}, {confidence[i]} of {row}"
        if answer["reject"][i] not in ((1,) if is_blank else (0, 1)):
            return f"row {i} has reject {answer['reject'][i]}"
    for position, index in good.items():
        if abs(probabilities[position] - expected["probabilities"][index]).max() > TOLERANCE:
            return f"row {position}, a good image, has got another answer than alone"
        if answer["reject"][position] != expected["reject"][index]:
            return f"row {position}, a good image, has got another reject than alone"
    return None


def as_numpy(answer):
    return {name: value.numpy() for name, value in answer.items()}


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--labels", required=True, help="separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--batches", type=int, default=1)
    given = parser.parse_args(arguments)

    serve = tf.saved_model.load(given.folder).signatures["serving_default"]
    labels = given.labels.encode().split(b",")
    expected = as_numpy(serve(image_bytes=tf.constant(SEEDS)))
    count = collections.Counter()
    for number in range(given.first, given.first + given.batches):
        print("batch", number, flush=True)
        files, good = batch(given.seed, number)
        answer = as_numpy(serve(image_bytes=tf.constant(files)))
        found = problem(answer, labels, good, expected)
        if found:
            sys.exit(found)
        blank = ~answer["probabilities"].any(axis=1)
        count["mutated"] += BATCH_SIZE - GOOD
        count["blank"] += int(blank.sum())
        count["rejected"] += int(answer["reject"].sum())
    count["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(count))


if __name__ == "__main__":
    main(sys.argv[1:])
