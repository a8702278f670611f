"""Writes the pictures of explanations, each whole or not at all."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from keras_vit.explain.explanation import Explanation
from keras_vit.files import make_folder, remove_made, whole_file


def write_pictures(
    explanations: Iterable[Explanation],
    paths: Sequence[Path],
    draw: Callable[[Explanation], bytes],
    option: str,
) -> Iterator[tuple[Explanation, Path]]:
    """Writes a picture for each explanation without an error, and yields the explanation and its path.

    Args:
        explanations: one per path, in order.
        paths: of `names.picture_paths`.
        draw: the bytes of a picture.
        option: the command's option that names the folder, for error messages.

    Raises:
        InputError: the folder cannot be made.
    """
    made = make_folder(paths[0].parent, option)
    try:
        for explanation, path in zip(explanations, paths, strict=True):
            if explanation.error is None:
                with whole_file(path, "wb") as file:
                    file.write(draw(explanation))
            yield explanation, path
    finally:
        remove_made(made)  # only where nothing was written
