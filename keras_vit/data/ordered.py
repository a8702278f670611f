"""Classes that are the steps of a scale: their order is what the user says, and a mistake has a size."""

from collections import Counter
from collections.abc import Sequence

from keras_vit.data.class_names import class_name, same_names
from keras_vit.data.image_set import ImageSet
from keras_vit.data.targets import names_from_json
from keras_vit.errors import InputError
from keras_vit.text import shown

OPTION = "--ordered"


def read_order(text: str) -> tuple[str, ...]:
    """The classes of `"low,middle,high"`, or of a JSON list, for names with a comma.

    Raises:
        InputError: there are fewer than two, or one is empty or there twice.
    """
    names = names_from_json(text) if text.lstrip().startswith("[") else text.split(",")
    found = tuple(class_name(name, OPTION) for name in names)
    twice = [name for name, number in Counter(found).items() if number > 1]
    if twice:
        raise InputError(f'{OPTION} names the class "{twice[0]}" twice: name each class once.')
    if len(found) < 2:
        raise InputError(f"{OPTION} takes the classes from the lowest to the highest, such as low,high.")
    return found


def in_given_order(image_set: ImageSet, ordered: Sequence[str]) -> ImageSet:
    """The images with their classes in this order.

    Args:
        image_set: the images.
        ordered: exactly their classes.

    Raises:
        InputError: a class is missing or unknown, or the images have several labels.
    """
    if image_set.several:
        raise InputError(
            f"{image_set.source} has several labels per image, which have no order: omit {OPTION}."
        )
    known = same_names(image_set.class_names, ordered)
    missing = [name for name in image_set.class_names if name not in known]
    unknown = [name for name in ordered if name not in known.values()]
    for names, what in ((missing, "does not name"), (unknown, "names")):
        if names:
            are = ", ".join(map(shown, image_set.class_names))
            which = "which is a class" if what != "names" else "which is not a class"
            raise InputError(
                f'{OPTION} {what} "{shown(names[0])}", {which} of {image_set.source}: name exactly its '
                f"classes in their order ({are})."
            )
    return image_set.in_classes(ordered)
