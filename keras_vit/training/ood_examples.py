"""The user's own examples of what a run is to reject: `train --ood-examples FOLDER`."""

from collections.abc import Sequence

from keras_vit.data.image_set import Image
from keras_vit.runs.ood import FEWEST_EXAMPLES
from keras_vit.text import say
from keras_vit.training.prepare import Prepared
from keras_vit.training.spread import read_unlabeled

WHAT = "images to reject"


def read_examples(folder: str, prepared: Prepared) -> Sequence[Image]:
    """The images of a folder, nested or not, without those that the run has as training or test images.

    Images that cannot be read are named and left out.

    Args:
        folder: the folder.
        prepared: the images of the run.

    Raises:
        InputError: the folder cannot be read, or no image of it is left.
    """
    data = prepared.data
    found = read_unlabeled(
        folder,
        data.image_set,
        data.split,
        data.preprocessing.decoding,
        what=WHAT,
        option="--ood-examples",
        purpose="to reject",
    )
    say(found.line(WHAT))
    if len(found) < FEWEST_EXAMPLES:
        say(
            f"{WHAT}: fewer than {FEWEST_EXAMPLES}, so none of them chooses what the rejection looks at; "
            "they are only counted"
        )
    return found.images
