"""The settings of a search: values that are refused, and what may change when it is continued."""

import dataclasses
import json
from pathlib import Path

import pytest

from keras_vit.cli.main import parse
from keras_vit.errors import InputError
from keras_vit.search.config import INTERNAL, WHERE, SearchConfig, describe_search, from_dict, to_dict, where
from keras_vit.search.spaces import SPACES
from keras_vit.training.config import DEVICES
from keras_vit.training.prepare import prepare_data
from tests.search.running import case_name

pytestmark = pytest.mark.same_on_every_backend

FULL = SearchConfig(
    space="small",
    data="my images",
    crop_boxes=True,
    allow_outside=True,
    fixes="my fixes.csv",
    out=Path("searches/a search"),
    max_epochs=9,
    factor=2,
    iterations=2,
    max_trials=5,
    max_minutes=1.5,
    max_parameters=9_000_000,
    max_mult_adds=10**9,
    freeze=("depth=6", "stem=linear", "drop_path_rate=0.1"),
    image_size=64,
    channels=1,
    aspect="pad",
    background=(0, 128, 255),
    pixel_range=(100.0, 900.0),
    tiff_page=2,
    show_channels=(1,),
    test_fraction=0.25,
    validation_fraction=0.125,
    group_by="parent",
    split_duplicates="keep",
    skip_unreadable=True,
    precision="mixed_bfloat16",
    xla=False,
    seed=5,
    workers=0,
    host="127.0.0.1",
    port=4000,
    distribute="data",
    devices=2,
    tensorboard=True,
    retrain=False,
    resume=False,
)
OF_WEIGHTS = ("init", "recipe")  # see test_finetune_config.py
FIELDS = [
    field.name for field in dataclasses.fields(SearchConfig) if field.name not in (*INTERNAL, *OF_WEIGHTS)
]
SEARCH_FIELDS = [name for name in FIELDS if name not in WHERE]


def test_every_field_is_given_and_none_is_a_default():
    for name in FIELDS:
        assert getattr(FULL, name) != getattr(SearchConfig(), name), name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            dict(space="nothing"),
            "space must be one of defect28, small, or a Python file such as my_space.py. Received: "
            "space='nothing'",
        ),
        (dict(max_epochs=0), "max_epochs must be 1 or more. Received: max_epochs=0"),
        (dict(factor=1), "factor must be 2 or more. Received: factor=1"),
        (dict(iterations=0), "iterations must be 1 or more. Received: iterations=0"),
        (dict(max_trials=0), "max_trials must be 1 or more. Received: max_trials=0"),
        (dict(max_minutes=0.0), "max_minutes must be above 0.0. Received: max_minutes=0.0"),
        (dict(max_minutes=float("nan")), "max_minutes must be above 0.0. Received: max_minutes=nan"),
        (dict(max_parameters=0), "max_parameters must be 1 or more. Received: max_parameters=0"),
        (dict(max_mult_adds=-1), "max_mult_adds must be 1 or more. Received: max_mult_adds=-1"),
        (dict(image_size=0), "image_size must be 1 or more. Received: image_size=0"),
        (
            dict(image_size=30),
            "patch_size=4 does not divide images of 30x30 pixels: choose another --image-size, or "
            "--freeze patch_size at one that does.",
        ),
        (
            dict(freeze=("patch_size=8",)),
            "patch_size=8 does not divide images of 28x28 pixels: choose another --image-size, or "
            "--freeze patch_size at one that does.",
        ),
        (dict(channels=33), "channels must be 1 or more and 32 at most. Received: channels=33"),
        (dict(aspect="fit"), "aspect must be one of 'stretch', 'crop', 'pad'. Received: aspect='fit'"),
        (dict(test_fraction=0.0), "test_fraction must be above 0.0 and 0.9 at most."),
        (dict(test_fraction=0.95), "test_fraction must be above 0.0 and 0.9 at most."),
        (dict(validation_fraction=0.0), "validation_fraction must be above 0.0 and 0.9 at most."),
        (dict(validation_fraction=1), "validation_fraction must be above 0.0 and 0.9 at most."),
        (
            dict(precision="half"),
            "precision must be one of 'float32', 'mixed_bfloat16', 'mixed_float16', 'auto'.",
        ),
        (dict(seed=-1), "seed must be 0 or more and 2147483647 at most. Received: seed=-1"),
        (dict(seed=2**31), "seed must be 0 or more and 2147483647 at most."),
        (dict(workers=-1), "workers must be 0 or more. Received: workers=-1"),
        (dict(workers=0), "workers=0 is a chief that waits for others: give its address with --host."),
        (dict(port=0), "port must be 1 or more and 65535 at most. Received: port=0"),
        (dict(port=65536), "port must be 1 or more and 65535 at most."),
        (dict(distribute="all"), "distribute must be one of 'none', 'data', 'model'."),
        (dict(distribute="data", devices=0), "devices must be 1 or more. Received: devices=0"),
        (
            dict(devices=2),
            "devices goes with distribute: add --distribute data, or omit --devices.",
        ),
    ],
    ids=case_name,
)
def test_wrong_values(values, message):
    with pytest.raises(InputError) as caught:
        SearchConfig(**values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["depth"], "--freeze takes NAME=VALUE, such as depth=6. Received: depth"),
        (["depth="], "--freeze takes NAME=VALUE, such as depth=6. Received: depth="),
        (["=6"], "--freeze takes NAME=VALUE, such as depth=6. Received: =6"),
        ([""], "--freeze takes NAME=VALUE, such as depth=6. Received: "),
        (["width=6"], "There is no width to freeze: the fields are depth, num_heads, dim,"),
        (["model=S"], "There is no model to freeze"),
        (["max_parameters=9"], "There is no max_parameters to freeze"),
        (["depth=six"], "depth must be a whole number. Received: depth='six'"),
        (["depth=6.0"], "depth must be a whole number. Received: depth=6.0"),
        (["depth=6=7"], "depth must be a whole number. Received: depth='6=7'"),
        (["depth=0"], "depth must be 1 or more. Received: depth=0"),
        (["learning_rate=fast"], "learning_rate must be a number. Received: learning_rate='fast'"),
        (["learning_rate=0"], "learning_rate must be above 0.0 and 10.0 at most."),
        (["learning_rate=nan"], "learning_rate must be a number. Received: learning_rate='nan'"),
        (["learning_rate=NaN"], "learning_rate must be above 0.0 and 10.0 at most."),
        (["stem=wide"], "stem must be one of 'linear', 'conv', 'conv-pool'. Received: stem='wide'"),
        (["dim=66"], "num_heads must divide dim, unless head_dim is given. Received: num_heads=4, dim=66"),
        (["num_heads=11"], "works with all choices of num_heads, patch_size and stem: widen it."),
        (["patch_size=7"], "so patch_size must be 2, 4, 8, 16, ... Received: patch_size=7"),
        (["depth=6", "dim=64", "depth=7"], "--freeze has depth more than once: omit all but one."),
        (["epochs=9"], "Hyperband sets the epochs: instead of epochs=9, use --max-epochs."),
        (
            [f"{name}={value}" for name, value in SPACES["defect28"].default_point().items()][1:-1],
            "--freeze leaves nothing to search: omit some of its values.",
        ),
    ],
    ids=" ".join,
)
def test_wrong_values_to_freeze(fields, message):
    with pytest.raises(InputError) as caught:
        SearchConfig(freeze=tuple(fields))
    assert message in str(caught.value)


def test_the_space_has_the_given_settings():
    space = SearchConfig(
        max_epochs=9, max_parameters=70_000, freeze=("patch_size=7", "stem=linear", "weight_decay=1e-2")
    ).search_space()
    assert (space.epochs, space.max_parameters) == (9, 70_000)
    assert (space.patch_size, space.stem, space.weight_decay) == (7, "linear", 0.01)
    assert space.max_mult_adds == SPACES["defect28"].max_mult_adds
    assert "patch_size" not in space.searched()
    assert space.depth == SPACES["defect28"].depth


@pytest.mark.parametrize("config", [SearchConfig(), FULL], ids=["default", "full"])
def test_a_written_config_is_read_back(config):
    plain = json.loads(json.dumps(to_dict(config)))
    assert plain.keys() == set(SEARCH_FIELDS)
    assert from_dict(plain, config) == config
    location = json.loads(json.dumps(where(config)))
    assert from_dict(plain, SearchConfig(out=config.out, **location)) == config


@pytest.mark.parametrize("name", SEARCH_FIELDS)
def test_another_search_is_refused_and_a_default_is_as_stored(name):
    settings = {"out": Path("steel"), name: getattr(FULL, name)}
    if name == "space":
        settings["image_size"] = None
    stored, default = SearchConfig(out=Path("steel")), SearchConfig(out=Path("steel"))
    with pytest.raises(InputError) as caught:
        from_dict(to_dict(stored), SearchConfig(**settings))
    value, other = (to_dict(one)[name] for one in (stored, SearchConfig(**settings)))
    option = name.replace("_", "-")
    assert str(caught.value) == (
        f"steel was started with {name}={value}, not {other}: omit --{option} to continue it, or start "
        "another search with another --out."
    )
    stored = SearchConfig(**settings)
    assert from_dict(to_dict(stored), default) == stored
    assert from_dict(to_dict(stored), stored) == stored


@pytest.mark.parametrize("name", WHERE)
def test_a_continued_search_may_run_elsewhere(name):
    settings = dataclasses.replace(SearchConfig(host="127.0.0.1"), distribute="data", devices=1)
    settings = dataclasses.replace(settings, **{name: getattr(FULL, name)})
    found = from_dict(to_dict(SearchConfig()), settings)
    assert found == settings
    assert getattr(found, name) == getattr(FULL, name)


def test_frozen_values_have_no_order():
    stored = SearchConfig(freeze=("depth=6", "stem=conv"))
    assert from_dict(to_dict(stored), SearchConfig(freeze=("stem=conv", "depth=6"))) == stored
    with pytest.raises(
        InputError, match=r"was started with freeze=\['depth=6', 'stem=conv'\], not \['depth=6'"
    ):
        from_dict(to_dict(stored), SearchConfig(freeze=("depth=6",)))


@pytest.mark.parametrize(
    "plain",
    [
        {},
        [],
        "text",
        None,
        {**to_dict(SearchConfig()), "freeze": 3},
        {**to_dict(SearchConfig()), "new": 1},
        {**to_dict(SearchConfig()), "out": "x"},
        {**to_dict(SearchConfig()), "max_epochs": "many"},
    ],
    ids=case_name,
)
def test_a_damaged_config_is_refused(plain):
    with pytest.raises(InputError, match=r"^steel/search.json is damaged \(.*\): begin a search elsewhere"):
        from_dict(plain, SearchConfig(out=Path("steel")))


def test_the_folder_has_the_name_of_the_space():
    assert SearchConfig().folder == Path("searches/defect28")
    assert FULL.folder == Path("searches/a search")


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        (dict(), (28, 28, 1)),
        (dict(channels=3), (28, 28, 3)),
        (dict(image_size=56), (56, 56, 1)),
        (dict(space="small"), (224, 224, 3)),
        (dict(space="small", channels=1, image_size=64), (64, 64, 1)),
    ],
)
def test_images_have_the_shape_of_the_space(given, shape):
    config = SearchConfig(**given)
    assert config.image_shape == config.train_config.image_shape == shape
    assert describe_search(config)["image_shape"] == list(shape)


# Options that `search` and `train` share, and a size to train.
SHARED = {
    "nothing": ([], "defect-conv/4"),
    "the split": (
        ["--test-fraction", "0.4", "--validation-fraction", "0.25", "--seed", "3"],
        "defect-conv/4",
    ),
    "the pixels": (["--image-size", "32", "--channels", "3", "--aspect", "crop"], "defect-conv/4"),
    "unreadable ones": (["--skip-unreadable"], "defect-conv/4"),
    "the small space": (["--space", "small", "--image-size", "32"], "S/16"),
}


@pytest.mark.parametrize(("options", "model"), SHARED.values(), ids=SHARED)
def test_the_images_are_those_of_the_command_train(options, model, images):
    options = ["--data", str(images), *options]
    search = parse(["search", *options, "--freeze", "batch_size=8"]).config.train_config
    rest = options[:2] + options[4:] if "--space" in options else options
    train = parse(["train", "--model", model, "--batch-size", "8", *rest]).run
    assert search.model == train.model
    assert search.image_shape == train.image_shape
    for field in dataclasses.fields(train):
        if field.name not in ("image_size", "channels", *DEVICES):
            assert getattr(search, field.name) == getattr(train, field.name), field.name
    ours, theirs = prepare_data(search)[0], prepare_data(train)[0]
    for part in ("train", "validation", "test"):
        assert ours.names(part) == theirs.names(part)
    assert ours.preprocessing == theirs.preprocessing
    assert ours.class_names == theirs.class_names


def test_the_largest_batch_must_fit(images):
    assert SearchConfig().train_config.recipe.batch_size == 64
    with pytest.raises(InputError, match="batch_size 16 is more than the 12 training images"):
        prepare_data(
            SearchConfig(
                data=str(images), test_fraction=0.5, validation_fraction=0.3, freeze=("batch_size=16",)
            ).train_config
        )


def test_the_description_of_a_search():
    described = describe_search(SearchConfig(freeze=("depth=6",), max_epochs=9, factor=2, seed=4))
    assert described == json.loads(json.dumps(described))
    assert described["frozen"] == {"model": "defect-conv", "depth": 6, "epochs": 9}
    assert "depth" not in described["searched"]
    assert set(described["searched"]) | set(described["frozen"]) == {"model", *vars(SPACES["defect28"])} - {
        "max_parameters",
        "max_mult_adds",
    }
    assert (described["max_epochs"], described["factor"], described["seed"], described["space"]) == (
        9,
        2,
        4,
        "defect28",
    )
