"""Where maps lie on their pictures, and how the pictures are called."""

from types import SimpleNamespace

import numpy as np
import pytest

from keras_vit import InputError, Preprocessing
from keras_vit.data.pipeline import read_pixels
from keras_vit.explain.names import picture_paths
from keras_vit.explain.placement import place

pytestmark = pytest.mark.same_on_every_backend


@pytest.mark.parametrize("aspect", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(40, 40), (40, 80), (90, 30), (61, 47)])
@pytest.mark.parametrize("spot", [(0.5, 0.5), (0.3, 0.6), (0.7, 0.4)])
def test_a_bright_spot_is_where_the_patch_is(aspect, size, spot):
    """A spot is drawn on a picture, found in the prepared image, and placed back."""
    shape = (24, 32, 1)
    at = [int(share * side) for share, side in zip(spot, size, strict=True)]
    picture = np.zeros((*size, 1), "uint8")
    picture[max(at[0] - 2, 0) : at[0] + 3, max(at[1] - 2, 0) : at[1] + 3] = 255
    prepared = read_pixels([picture], Preprocessing(shape, aspect))[0, ..., 0]
    box = place(*size, *shape[:2], aspect)
    if not (box.top + 3 < at[0] < box.bottom - 3 and box.left + 3 < at[1] < box.right - 3):
        assert aspect == "crop"  # the model does not see it
        return
    weight = prepared / prepared.sum()
    row = (weight.sum(axis=1) * (np.arange(24) + 0.5)).sum() / 24
    column = (weight.sum(axis=0) * (np.arange(32) + 0.5)).sum() / 32
    # Half a pixel of the prepared image, in pixels of the picture.
    slack = 0.5 * max((box.bottom - box.top) / 24, (box.right - box.left) / 32)
    assert abs(box.top + row * (box.bottom - box.top) - (at[0] + 0.5)) < slack
    assert abs(box.left + column * (box.right - box.left) - (at[1] + 0.5)) < slack


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (["a.jpg", "b.tar.png"], ["a.png", "b.tar.png"]),
        (["x/a.jpg", "y/a.jpg", "a.png", "A.png"], ["a.png", "a-2.png", "a-3.png", "A-4.png"]),
        (["a.png", "a-2.png", "z/a.png"], ["a.png", "a-2.png", "a-3.png"]),
        (["b" * 300 + ".png"], ["b" * 160 + ".png"]),
        ([b"\xff.png".decode("utf-8", "surrogateescape")], ["_.png"]),
    ],
)
def test_names_do_not_collide(images, names, tmp_path):
    found = [path.name for path in picture_paths(images, tmp_path, "--out")]
    assert found == names
    assert len({name.casefold() for name in found}) == len(names)


def test_a_picture_is_not_overwritten(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match=r"There is a .*a\.png already: remove it, or choose another --out"):
        picture_paths(["b.jpg", "a.jpg"], tmp_path, "--out")


@pytest.mark.parametrize(("heads", "pictures"), [(1, 4), (4, 7), (12, 15)])
def test_a_figure_has_every_map(heads, pictures, monkeypatch):
    from keras_vit.explain import figure
    from keras_vit.explain.explanation import Explanation

    shown = []
    monkeypatch.setattr(figure, "show", lambda axis, pixels, values, box: shown.append(values))
    grid = np.zeros((2, 3), "float32")
    explanation = Explanation(
        image="a\n.png",
        label="x" * 200,
        confidence=0.5,
        reject=True,
        class_name="$x",
        block=0,
        heads=np.zeros((heads, 2, 3)),
        rollout=grid,
        gradient_weighted=grid,
        pixels=np.zeros((8, 12, 3), "uint8"),
        box=SimpleNamespace(),
    )
    assert figure.figure_png(explanation).startswith(b"\x89PNG")
    assert len(shown) == pictures
    assert figure.title(explanation).startswith("a\\n.png\n\u2026xxx")
    assert figure.title(explanation).endswith("50.0%, rejected: unlike the training images")
