"""A search space from a file of the user: reading, storing and refusing it."""

import json
import os

import pytest

from keras_vit.errors import InputError
from keras_vit.search import Choice, Range, SearchSpace
from keras_vit.search.config import SearchConfig, describe_search, from_dict, to_dict, where
from keras_vit.search.folder import command_of
from tests.helpers.paths import ROOT
from tests.search.running import case_name

pytestmark = pytest.mark.same_on_every_backend

FILE = """
from keras_vit.search import Choice, Range, SearchSpace

SPACE = SearchSpace(
    depth=Range(1, 3, default=2), num_heads=Choice((4, 2)), stem="linear", max_parameters=500_000
)
"""
SPACE = SearchSpace(
    depth=Range(1, 3, default=2), num_heads=Choice((4, 2)), stem="linear", max_parameters=500_000
)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_the_space_comes_from_the_file(file):
    config = SearchConfig(space="mine.py", max_epochs=9, freeze=("dim=32",))
    space = config.search_space()
    assert (space.depth, space.num_heads, space.stem) == (SPACE.depth, SPACE.num_heads, "linear")
    assert (space.dim, space.epochs, space.max_parameters) == (32, 9, 500_000)
    assert SearchConfig(space="mine.py", max_parameters=10**6).search_space().max_parameters == 10**6
    assert str(config.folder) == os.path.join("searches", "mine")
    assert config.image_shape == (28, 28, 1)
    assert config.train_config.model == "defect-conv/4"
    assert SearchConfig(space=str(file)).own_space == config.own_space


@pytest.mark.parametrize(
    ("lines", "given", "shape"),
    [
        ("IMAGE_SHAPE = (64, 32, 3)", {}, (64, 32, 3)),
        ("IMAGE_SHAPE = [32, 32, 1]", {}, (32, 32, 1)),
        ("IMAGE_SHAPE = (64, 64, 3)", dict(image_size=32, channels=1), (32, 32, 1)),
        ('SPACE = SearchSpace(model="S", stem="linear")', {}, (224, 224, 3)),
    ],
)
def test_the_images_have_the_shape_of_the_file_or_of_the_size(lines, given, shape, file):
    file.write_text(f"{FILE}\n{lines}\n")
    config = SearchConfig(space="mine.py", **given)
    assert config.image_shape == config.train_config.image_shape == shape
    assert describe_search(config)["image_shape"] == list(shape)


def test_the_example_is_a_space():
    config = SearchConfig(space=ROOT / "tuning" / "my_space.py")
    assert config.image_shape == (64, 64, 1)
    assert "depth" in config.search_space().searched()


WRONG = {
    "no file": (
        None,
        "There is no file mine.py: give a Python file that defines SPACE, or one of defect28, small.",
    ),
    "nothing": ("", "mine.py must define SPACE = SearchSpace(...)."),
    "another thing": ("SPACE = 3", "mine.py must define SPACE = SearchSpace(...). Received: SPACE=3"),
    "a class": (
        "from keras_vit.search import SearchSpace\nSPACE = SearchSpace",
        "mine.py must define SPACE = SearchSpace(...). Received: SPACE=<class",
    ),
    "a name": ("import math\n\nSPACE = Space()", "mine.py, line 3: NameError: name 'Space' is not defined"),
    "in a function": (
        "def half(x):\n    return x / 0\n\nSPACE = half(1)",
        "mine.py, line 2: ZeroDivisionError: division by zero",
    ),
    "syntax": ("SPACE = (\n", "mine.py, line 1: SyntaxError: '(' was never closed"),
    "bytes": (b"\x00\xff", "mine.py: SyntaxError: "),
    "a module": (
        "import nosuchmodule",
        "mine.py, line 1: ModuleNotFoundError: No module named 'nosuchmodule'",
    ),
    "an exit": ("raise SystemExit(3)", "mine.py, line 1: SystemExit: 3"),
    "a wrong space": (
        "from keras_vit.search import SearchSpace\n\nSPACE = SearchSpace(depth=0)",
        "mine.py, line 3: depth must be 1 or more. Received: depth=0",
    ),
    "an argument": (
        "from keras_vit.search import SearchSpace\nSPACE = SearchSpace(depht=2)",
        "mine.py, line 2: TypeError: ",
    ),
    "a shape": (f"{FILE}\nIMAGE_SHAPE = 28", "mine.py: image_shape must be a list of 3"),
    "many channels": (
        f"{FILE}\nIMAGE_SHAPE = (28, 28, 33)",
        "mine.py: the third number of image_shape must be",
    ),
    "epochs": (
        "from keras_vit.search import SearchSpace\nSPACE = SearchSpace(epochs=9)",
        "Hyperband sets the epochs: omit epochs=9 in mine.py, and use --max-epochs.",
    ),
    "patches": (f"{FILE}\nIMAGE_SHAPE = (30, 28, 1)", "patch_size=4 does not divide images of 30x28 pixels"),
    "nothing to search": (
        "from keras_vit.search import SearchSpace\n"
        "SPACE = SearchSpace('defect-conv', 2, 2, 16, 4, 2, 'conv', 0.0, 1e-3, 0.1, 8, 0.0)",
        "--freeze leaves nothing to search",
    ),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_refused_in_one_sentence(text, message, file):
    file.unlink()
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        SearchConfig(space="mine.py")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_epochs_may_be_given_twice(file):
    file.write_text("from keras_vit.search import SearchSpace\nSPACE = SearchSpace(epochs=9)")
    assert SearchConfig(space="mine.py", max_epochs=9).search_space().epochs == 9


# Continued


def test_a_search_is_continued_without_the_file(file):
    config = SearchConfig(space="mine.py", max_epochs=9, max_trials=3)
    plain = json.loads(json.dumps(to_dict(config)))
    assert plain["space"] == "mine.py"
    location = json.loads(json.dumps(where(config)))
    file.unlink()
    settings = SearchConfig(out=config.folder, **location)
    found = from_dict(plain, settings)
    assert (found.own_space, found.max_epochs, found.max_trials) == (config.own_space, 9, 3)
    assert found.search_space() == config.search_space()
    assert to_dict(found) == plain


def test_the_same_file_may_have_another_path_and_a_changed_one_is_refused(file):
    plain = to_dict(SearchConfig(space="mine.py"))
    moved = file.with_name("moved.py")
    file.rename(moved)
    assert from_dict(plain, SearchConfig(space=str(moved))).space == "mine.py"
    moved.write_text(FILE.replace("(1, 3,", "(1, 4,"))
    with pytest.raises(InputError) as caught:
        from_dict(plain, SearchConfig(space="moved.py", out="steel"))
    assert str(caught.value) == (
        "moved.py has changed since steel was started: undo the change, or omit --space to continue with the "
        "space as it was, or start another search with another --out."
    )


@pytest.mark.parametrize(("before", "now"), [("small", "mine.py"), ("mine.py", "small")], ids=case_name)
def test_a_named_space_is_another_search(before, now, file):
    plain = to_dict(SearchConfig(space=before))
    with pytest.raises(InputError, match=f"was started with space={before}, not {now}: omit --space"):
        from_dict(plain, SearchConfig(space=now, out="steel"))


def test_the_command_names_the_file(file):
    assert command_of(SearchConfig(space="mine.py", seed=2)) == (
        "keras-vit search --space mine.py --seed 2 --out searches/mine"
    )
