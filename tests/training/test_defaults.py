"""The defaults for the user's own images: by what they are, the same everywhere, and said in one line."""

import dataclasses
import json
import shlex

import numpy as np
import pytest
from PIL import Image

from keras_vit.cli.main import main, parse
from keras_vit.data.overview import Overview, is_gray
from keras_vit.data.sources import load_image_set
from keras_vit.errors import InputError
from keras_vit.process.exit_codes import FINE, WRONG_USAGE
from keras_vit.search.config import SearchConfig
from keras_vit.search.worker import prepare_images
from keras_vit.training.config import AUTO, TrainConfig, from_dict, to_dict
from keras_vit.training.defaults import (
    choose_by_images,
    cut_batch,
    line_of_images,
    model_for,
    most_patches,
)
from keras_vit.training.folder import stored_config
from keras_vit.training.options import command_of, with_options
from keras_vit.training.recipe import RECIPES, Recipe
from tests.helpers import tiny

pytestmark = pytest.mark.same_on_every_backend

GRAY, RED = (128, 128, 128), (200, 40, 40)


def noise(seed=0, size=(40, 48), apart=0):
    """Gray noise of three channels that are up to `apart` levels from each other."""
    rng = np.random.default_rng(seed)
    gray = rng.integers(20, 235, (*size, 1))
    return np.clip(gray + rng.integers(-apart, apart + 1, (*size, 3)), 0, 255).astype("uint8")


def flat(color, size=(40, 48)):
    return np.broadcast_to(np.array(color, "uint8"), (*size, len(color))).copy()


def with_dot(pixels, color, side=1):
    pixels = pixels.copy()
    pixels[3 : 3 + side, 5 : 5 + side] = color
    return pixels


PIXELS = {
    "one channel": (noise()[..., :1], True),
    "gray with alpha": (noise()[..., :2], True),
    "three equal channels": (noise(), True),
    "noise between the channels": (noise(apart=3), True),
    "rounding": (noise(apart=1), True),
    "colour": (flat(RED), False),
    "a faint tint": (flat((128, 128, 120)), False),
    "one red pixel": (with_dot(noise(), (255, 0, 0)), False),
    "a pale dot": (with_dot(flat(GRAY), (148, 128, 128), 5), False),
    "noise, and two rows more than blocks": (noise(size=(50, 70), apart=3), True),
    "colour that is transparent": (np.dstack([flat(RED), np.zeros((40, 48, 1), "uint8")]), True),
    "colour that is opaque": (np.dstack([flat(RED), np.full((40, 48, 1), 255, "uint8")]), False),
    "16 bits, gray": (np.repeat(noise()[..., :1].astype("uint16") * 257, 3, axis=-1), True),
    "16 bits, noise": (noise(apart=3).astype("uint16") * 257, True),
    "16 bits, colour": (flat(RED).astype("uint16") * 257, False),
    "one pixel": (flat(RED, (1, 1)), False),
}


@pytest.mark.parametrize(("pixels", "gray"), PIXELS.values(), ids=PIXELS)
def test_what_is_gray(pixels, gray):
    assert is_gray(pixels) is gray


def written(folder, pixels, kind="png", **options):
    path = folder / f"image.{kind}"
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("quality", [10, 50, 95])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_jpeg_does_not_add_colour_to_gray_nor_take_it_away(quality, subsampling, tmp_path):
    options = dict(quality=quality, subsampling=subsampling)
    assert Overview([written(tmp_path, noise(apart=1), "jpg", **options)]).is_gray
    assert not Overview([written(tmp_path, flat((140, 128, 110)), "jpg", **options)]).is_gray


def test_one_image_in_colour_is_enough(tmp_path):
    images = [noise(i)[..., :1] for i in range(70)] + [flat(RED)] + [noise()]
    assert not Overview(images).is_gray
    assert Overview(images[:70]).is_gray


def test_a_palette_in_colour_and_one_of_grays(tmp_path):
    red = written(tmp_path, np.asarray(Image.fromarray(flat(RED))))
    Image.open(red).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "red.png")
    Image.fromarray(noise()).convert("L").convert("P").save(tmp_path / "gray.png")
    assert not Overview([tmp_path / "red.png"]).is_gray
    assert Overview([tmp_path / "gray.png"]).is_gray


def test_the_size_is_the_median_as_shown(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # a viewer turns it by 90 degrees
    Image.fromarray(noise(size=(30, 50))).save(tmp_path / "turned.jpg", exif=turned)
    images = [tmp_path / "turned.jpg", noise(size=(60, 30)), noise(size=(20, 31))]
    assert Overview(images[:1]).size == (50, 30)
    assert Overview(images).size == (50, 30)


@pytest.mark.parametrize("kind", ["png", "webp", "avif", "tif"])
def test_the_sides_of_a_turned_file_are_exchanged_once(kind, tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 8
    Image.fromarray(noise(size=(30, 50))).save(tmp_path / f"turned.{kind}", exif=turned)
    assert Overview([tmp_path / f"turned.{kind}"]).size == (50, 30)


def test_what_is_transparent_shows_the_background(tmp_path):
    drawing = np.dstack([noise(), np.where(np.eye(40, 48) > 0, 255, 0)]).astype("uint8")
    path = written(tmp_path, drawing)
    assert Overview([path]).is_gray
    assert not Overview([path], background=(255, 0, 0)).is_gray
    hidden = written(tmp_path, np.dstack([flat(RED), np.zeros((40, 48), "uint8")]))
    assert Overview([hidden]).is_gray


def test_an_unreadable_image_counts_for_nothing(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes(written(tmp_path, flat(RED)).read_bytes()[:60])
    overview = Overview([tmp_path / "text.png", tmp_path / "cut.png", noise(size=(8, 9))])
    assert overview.is_gray
    assert Overview([tmp_path / "text.png"]).size is None


TABLE = [
    # images, on a GPU, side, patch size and image size
    (100, False, 1000, (8, 128)),
    (700, False, 200, (8, 128)),
    (701, False, 200, (8, 112)),
    (1_100, False, 128, (8, 112)),
    (1_101, False, 128, (8, 96)),
    (1_500, False, 200, (8, 96)),
    (1_501, False, 200, (8, 80)),
    (2_400, False, 70, (8, 64)),
    (2_401, False, 200, (8, 64)),
    (4_000, False, 200, (8, 64)),
    (4_001, False, 200, (4, 28)),
    (60_000, False, 28, (4, 28)),
    (100, False, 100, (8, 96)),
    (100, False, 64, (8, 64)),
    (100, False, 63, (4, 60)),
    (1_000, False, 63, (4, 56)),
    (1_440, False, 63, (4, 48)),
    (3_000, False, 63, (4, 32)),
    (100, False, 28, (4, 28)),
    (100, False, 8, (4, 28)),
    (14_000, True, 200, (8, 128)),
    (14_001, True, 200, (8, 112)),
    (50_000, True, 32, (4, 32)),
    (100_000, True, 200, (4, 28)),
]


@pytest.mark.parametrize(("images", "accelerator", "side", "expected"), TABLE)
def test_the_table(images, accelerator, side, expected):
    assert model_for(side, most_patches(images, accelerator)) == expected


def drawn(folder, each=10, size=(64, 64), mode="RGB", color=None):
    """Class folders of gray images, or of images that differ in colour alone."""
    tiny.draw(folder, each=each, size=size, mode=mode)
    if color:
        for path in folder.glob("dots/*.png"):
            Image.fromarray(flat(color, size)).save(path)
    return folder


def chosen_for(folder, accelerator=False, **settings):
    config = TrainConfig(data=str(folder), **settings)
    image_set = load_image_set(config.data)
    overview = Overview(image_set.images)
    chosen = choose_by_images(config, image_set, overview, accelerator)
    config = dataclasses.replace(config, **chosen)
    return config, line_of_images(config, chosen, overview, config.image_shape)


CHOSEN = {
    "nothing given": ({}, ("defect-conv/8", 64, 3)),
    "auto given": (dict(model=AUTO, image_size=AUTO, channels=AUTO), ("defect-conv/8", 64, 3)),
    "channels": (dict(channels=1), ("defect-conv/8", 64, 1)),
    "image size": (dict(image_size=32), ("defect-conv/4", 32, 3)),
    "a larger one": (dict(image_size=256), ("defect-conv/16", 256, 3)),
    "one that 4 does not divide": (dict(image_size=30), ("defect-conv/2", 30, 3)),
    "height and width": (dict(image_size=(64, 128)), ("defect-conv/8", (64, 128), 3)),
    "model": (dict(model="defect-conv/4"), ("defect-conv/4", None, None)),
    "model, and auto for the rest": (
        dict(model="defect-conv/4", image_size=AUTO, channels=AUTO),
        ("defect-conv/4", 64, 3),
    ),
    "model with auto size": (dict(model="S/16", image_size=AUTO), ("S/16", 64, None)),
    "model with auto channels": (dict(model="B/16", channels=AUTO), ("B/16", None, 3)),
    "everything": (dict(model="S/8", image_size=48, channels=1), ("S/8", 48, 1)),
}


@pytest.fixture(scope="module")
def in_colour(tmp_path_factory):
    return drawn(tmp_path_factory.mktemp("colour") / "images", color=RED)


@pytest.mark.parametrize(("given", "expected"), CHOSEN.values(), ids=CHOSEN)
def test_given_values_win_and_each_auto_stands_alone(given, expected, in_colour):
    config, _ = chosen_for(in_colour, **given)
    assert (config.model, config.image_size, config.channels) == expected
    assert not config.follows_images


def test_gray_only_where_all_images_are_gray(tmp_path):
    config, line = chosen_for(drawn(tmp_path / "gray", size=(40, 200)))
    assert (config.model, config.image_size, config.channels) == ("defect-conv/8", 88, 1)
    assert line == (
        "chosen by the images: --model defect-conv/8 --image-size 88 --channels 1; they are resized from "
        "40x200 pixels (the median) to 88x88, all are gray. These options choose otherwise."
    )


LINES = {
    "chosen": (
        {},
        "chosen by the images: --model defect-conv/8 --image-size 64 --channels 3; they keep their 64x64 "
        "pixels (the median), their colour is kept. These options choose otherwise.",
    ),
    "gray asked for": (
        dict(channels=1),
        "chosen by the images: --model defect-conv/8 --image-size 64; they keep their 64x64 pixels (the "
        "median), their colour is dropped. These options choose otherwise.",
    ),
    "the model of the drawn defects": (
        dict(model="defect-conv/4"),
        "The images are shrunk from 64x64 pixels (the median) to 28x28 and lose their colour: --image-size "
        "and --channels 3 would keep more of them.",
    ),
    "all given": (dict(model="defect-conv/8", image_size=64, channels=3), None),
    "gray alone": (
        dict(model="defect-conv/8", image_size=64, channels=1),
        "The images lose their colour: --channels 3 would keep more of them.",
    ),
}


@pytest.mark.parametrize(("given", "line"), LINES.values(), ids=LINES)
def test_one_line_says_what_was_chosen_and_what_is_lost(given, line, in_colour):
    assert chosen_for(in_colour, **given)[1] == line


def test_the_drawn_defects_stay_small_and_gray():
    for config in (TrainConfig(), TrainConfig(image_size=AUTO, channels=AUTO, model=AUTO)):
        assert not config.follows_images
        assert (config.size, config.image_shape) == ("defect-pool/8", (56, 56, 1))


def test_an_odd_image_size_is_refused_before_anything_is_trained(in_colour):
    with pytest.raises(InputError, match="31x31 pixels, which must be even: choose another --image-size"):
        chosen_for(in_colour, image_size=31)


def test_the_images_must_be_seen_first(in_colour):
    with pytest.raises(InputError, match="The images decide model, image_size, channels: give values"):
        _ = TrainConfig(data=str(in_colour)).image_shape


def test_stored_settings_stay_as_they_were_recorded():
    earlier = {"data": "images", "model": "defect-conv/4", "image_size": None, "channels": None}
    config = from_dict(earlier)
    assert not config.follows_images
    assert config.image_shape == (28, 28, 1)


BATCHES = [
    # given to the command, training images, copies of the model, batch size
    ([], 256, 1, 32),
    ([], 255, 1, 16),
    ([], 100, 1, 8),
    ([], 28, 1, 8),
    ([], 28, 3, 6),
    ([], 5, 1, 5),
    ([], 2, 4, 32),
    (["--recipe", "lab"], 512, 1, 64),
    (["--recipe", "lab"], 150, 1, 16),
    (["--batch-size", "32"], 28, 1, 32),
    (["--batch-size", "40"], 28, 1, 40),
]


@pytest.mark.parametrize(("words", "images", "replicas", "expected"), BATCHES)
def test_a_batch_that_was_not_given_is_cut(words, images, replicas, expected):
    assert cut_batch(parse(["train", "--data", "x", *words]).run, images, replicas) == expected


def test_a_batch_given_in_python_is_not_cut():
    assert cut_batch(TrainConfig(data="x", recipe=Recipe(batch_size=40)), 28) == 40


def test_whether_a_batch_was_given_is_not_stored():
    given = with_options(TrainConfig(data="x"), dict(batch_size=32))
    assert given.fixed_batch
    assert to_dict(given) == to_dict(TrainConfig(data="x"))
    assert command_of(given) == command_of(TrainConfig(data="x"))


@pytest.fixture(scope="module")
def run_of_few(tmp_path_factory):
    """What the plain command prints of 30 images in colour, and its folder."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("few")
    drawn(folder / "images", size=(33, 30), color=RED)
    printed = io.StringIO()
    words = ["train", "--data", folder / "images", "--out", folder / "run", "--epochs", 1, "--depth", 1]
    words += ["--xla", "False"]
    with contextlib.redirect_stdout(printed):
        assert main(list(map(str, words))) == FINE
    return folder, printed.getvalue().splitlines()


@pytest.mark.long
def test_a_run_by_default_keeps_plain_values(run_of_few):
    folder, _ = run_of_few
    config = json.loads((folder / "run" / "config.json").read_text())
    train = config["train"]
    assert (train["model"], train["image_size"], train["channels"]) == ("defect-conv/4", 28, 3)
    assert train["recipe"]["batch_size"] == 8
    assert config["image_shape"] == [28, 28, 3]
    again = parse(shlex.split(config["command"])[1:]).run
    assert to_dict(again) == train
    assert not again.follows_images


@pytest.mark.long
def test_a_run_by_default_says_so_in_one_line_each(run_of_few):
    _, lines = run_of_few
    assert [line for line in lines if line.startswith("chosen by the images")] == [
        "chosen by the images: --model defect-conv/4 --image-size 28 --channels 3; they are shrunk from "
        "33x30 pixels (the median) to 28x28, their colour is kept. These options choose otherwise."
    ]
    assert [line for line in lines if line.startswith("batch size")] == [
        "batch size: 8 instead of 32, for the 21 training images; --batch-size chooses another"
    ]


@pytest.mark.long
def test_a_run_is_resumed_with_the_words_that_began_it(run_of_few):
    folder = run_of_few[0]
    config = json.loads((folder / "run" / "config.json").read_text())
    asked = TrainConfig(data=str(folder / "images"), out=folder / "run", resume=True)
    for words in ({}, dict(model=AUTO, image_size=AUTO, channels=AUTO)):
        found = stored_config(config, dataclasses.replace(asked, **words))
        assert (found.model, found.image_size, found.channels) == ("defect-conv/4", 28, 3)
    with pytest.raises(InputError, match="another image_size than 32"):
        stored_config(config, dataclasses.replace(asked, image_size=32))


@pytest.mark.long
def test_a_given_batch_that_is_too_large_is_refused(run_of_few, tmp_path, capsys):
    words = ["train", "--data", str(run_of_few[0] / "images"), "--out", str(tmp_path / "run")]
    assert main([*words, "--batch-size", "32"]) == WRONG_USAGE
    assert "batch_size 32 is more than the 21 training images" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_lab_recipe_has_another_batch_that_may_be_cut():
    assert RECIPES["lab"].batch_size != RECIPES["default"].batch_size


def test_a_search_says_what_its_models_do_not_see(in_colour, tmp_path):
    config = SearchConfig(data=str(in_colour), freeze=("batch_size=8",), out=tmp_path)
    assert prepare_images(config).audit.splitlines()[-1] == LINES["the model of the drawn defects"][1]


def test_a_batch_that_a_search_cannot_have_is_refused(in_colour, tmp_path):
    config = SearchConfig(data=str(in_colour), freeze=("batch_size=32",), out=tmp_path)
    with pytest.raises(InputError, match="batch_size 32 is more than the 21 training images"):
        prepare_images(config)
