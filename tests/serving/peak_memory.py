"""Measures how much memory an exported model takes for image files, in a new process. Linux only.

python -m tests.serving.peak_memory FOLDER FILE... sends the files as one batch. Prints a line of JSON
with the answers and the largest growth of the process in MB.
"""

import gc
import json
import re
import sys
from pathlib import Path

import tensorflow as tf

from tests.serving.served_images import FILES


def megabytes(name):
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024


def main(folder, *paths):
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    for count in (1, 2, 1, 2):
        serve(image_bytes=tf.constant([FILES["colour PNG"]] * count))
    files = tf.constant([Path(path).read_bytes() for path in paths])
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = megabytes("VmRSS")
    answer = serve(image_bytes=files)
    grown = megabytes("VmHWM") - before
    probabilities = answer["probabilities"].numpy()
    reject = answer["reject"].numpy()
    print(
        json.dumps(
            {"grown": grown, "blank": (~probabilities.any(axis=1)).tolist(), "reject": reject.tolist()}
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
