"""Checked dataclasses: the values they accept, and the message for other values."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from keras_vit.errors import InputError
from keras_vit.validation import (
    Channels,
    Count,
    Folder,
    Seed,
    Shape,
    Text,
    from_plain,
    helps,
    limits,
    to_plain,
    validated,
    words,
)

pytestmark = pytest.mark.same_on_every_backend


@validated
class Part:
    """A part of the whole."""

    rate: Annotated[float, Field(gt=0.0, le=10.0)] = 0.5
    """per step"""
    low: int = 0
    high: int = 1

    def __post_init__(self):
        if self.low > self.high:
            raise InputError(f"low must not exceed high. Received: low={self.low}, high={self.high}")


@validated
class Whole:
    """All kinds of fields."""

    name: str
    """what it is
    called"""
    count: Count = 1
    maybe: Count | None = None
    share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    free: float = 0.0
    flag: bool = False
    flag_or_none: bool | None = None
    kind: Literal["one", "two"] = "one"
    channels: Channels | None = None
    sides: Count | Annotated[tuple[Count, Count], Field(strict=False)] | None = None
    shape: Shape = (1, 1, 1)
    seed: Seed = 0
    text: Text | None = None
    folder: Folder | None = None
    some: tuple[str, ...] = ()
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    part: Part = dataclasses.field(default_factory=Part)


# field, given value, stored value
RIGHT = [
    ("count", 3, 3),
    ("maybe", None, None),
    ("maybe", 2, 2),
    ("share", 0, 0.0),
    ("share", 0.99, 0.99),
    ("free", -1e300, -1e300),
    ("flag", True, True),
    ("flag_or_none", None, None),
    ("kind", "two", "two"),
    ("channels", 3, 3),
    ("channels", None, None),
    ("sides", 4, 4),
    ("sides", (4, 5), (4, 5)),
    ("sides", [4, 5], (4, 5)),
    ("shape", [4, 5, 1], (4, 5, 1)),
    ("seed", 2**31 - 1, 2**31 - 1),
    ("text", "images", "images"),
    ("text", Path("images"), "images"),
    ("folder", "runs/first", Path("runs/first")),
    ("folder", Path("runs"), Path("runs")),
    ("some", ("a", "b"), ("a", "b")),
    ("changes", {"depth": 8}, {"depth": 8}),
    ("part", Part(rate=2), Part(rate=2.0)),
]


@pytest.mark.parametrize(("name", "given", "kept"), RIGHT)
def test_right_values(name, given, kept):
    made = Whole(name="x", **{name: given})
    found = getattr(made, name)
    assert found == kept
    assert type(found) is type(kept)
    assert from_plain(Whole, json.loads(json.dumps(to_plain(made)))) == made
    assert dataclasses.replace(made) == made
    assert pickle.loads(pickle.dumps(made)) == made


COUNT = "count must be a whole number. Received: count="
SIDES = "sides must be a whole number or a list of 2 whole numbers or None. Received: sides="
WRONG = [
    ("name", None, "name must be text. Received: name=None"),
    ("name", Path("x"), f"name must be text. Received: name={Path('x')!r}"),
    ("count", 0, "count must be 1 or more. Received: count=0"),
    ("count", "8", COUNT + "'8'"),
    ("count", 8.0, COUNT + "8.0"),
    ("count", True, COUNT + "True"),
    ("count", None, COUNT + "None"),
    ("maybe", -1, "maybe must be 1 or more. Received: maybe=-1"),
    ("maybe", "x", "maybe must be a whole number or None. Received: maybe='x'"),
    ("share", 1, "share must be 0.0 or more and below 1.0. Received: share=1"),
    ("share", float("nan"), "share must be 0.0 or more and below 1.0. Received: share=nan"),
    ("share", "0.5", "share must be a number. Received: share='0.5'"),
    ("share", True, "share must be a number. Received: share=True"),
    ("free", float("inf"), "free must be a finite number. Received: free=inf"),
    ("flag", 1, "flag must be true or false. Received: flag=1"),
    ("flag", "yes", "flag must be true or false. Received: flag='yes'"),
    ("flag_or_none", 0, "flag_or_none must be true or false or None. Received: flag_or_none=0"),
    ("kind", "three", "kind must be one of 'one', 'two'. Received: kind='three'"),
    ("channels", 33, "channels must be 1 or more and 32 at most. Received: channels=33"),
    ("channels", True, "channels must be a whole number or None. Received: channels=True"),
    ("channels", 1.0, "channels must be a whole number or None. Received: channels=1.0"),
    ("sides", 0, "sides must be 1 or more. Received: sides=0"),
    ("sides", (28, -4), "sides must be 1 or more. Received: sides=(28, -4)"),
    ("sides", (1, 2, 3), SIDES + "(1, 2, 3)"),
    ("sides", ("1", 2), SIDES + "('1', 2)"),
    ("sides", True, SIDES + "True"),
    ("shape", (0, 1, 1), "shape must be 1 or more. Received: shape=(0, 1, 1)"),
    ("shape", (1, 1), "shape must be a list of 3 whole numbers. Received: shape=(1, 1)"),
    ("seed", -1, "seed must be 0 or more and 2147483647 at most. Received: seed=-1"),
    ("text", 3, "text must be text or None. Received: text=3"),
    ("folder", 3, "folder must be a path or None. Received: folder=3"),
    ("some", ("a", 1), "some must be a list. Received: some=('a', 1)"),
    ("changes", "depth=8", "changes must be a dict. Received: changes='depth=8'"),
    ("part", "lab", "part must be a Part. Received: part='lab'"),
    ("part", {"rate": 1.0}, "part must be a Part. Received: part={'rate': 1.0}"),
]


@pytest.mark.parametrize(("name", "given", "message"), WRONG)
def test_wrong_values(name, given, message):
    values = {"name": "x", name: given}
    with pytest.raises(InputError) as caught:
        Whole(**values)
    assert str(caught.value) == message
    with pytest.raises(InputError):
        dataclasses.replace(Whole(name="x"), **{name: given})


def test_the_message_names_a_positional_value():
    assert Part(2.0).rate == 2.0
    with pytest.raises(InputError, match=r"^rate must be a number\. Received: rate='x'$"):
        Part("x")


def test_the_message_names_the_first_of_several_mistakes():
    with pytest.raises(InputError) as caught:
        Whole(name=3, count="x", share=2.0)
    assert str(caught.value) == "name must be text. Received: name=3"


def test_a_check_of_several_fields_keeps_its_message():
    with pytest.raises(InputError) as caught:
        Part(low=3, high=2)
    assert str(caught.value) == "low must not exceed high. Received: low=3, high=2"
    with pytest.raises(InputError, match=r"^low must not exceed high\. Received: low=3, high=2$"):
        from_plain(Whole, {"name": "x", "part": {"low": 3, "high": 2}})


@pytest.mark.parametrize(
    ("arguments", "given", "named"),
    [
        ((), {}, "name"),
        ((), {"name": "x", "nmae": "y"}, "nmae"),
        ((1.0, 0, 1, 5), {}, "Part"),
        ((1.0,), {"rate": 1.0}, "Part"),
    ],
)
def test_arguments_of_another_class_are_a_type_error(arguments, given, named):
    made = Part if arguments else Whole
    with pytest.raises(TypeError, match=named) as caught:
        made(*arguments, **given)
    assert "\n" not in str(caught.value)


def test_an_instance_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Part().rate = 1.0
    assert dataclasses.is_dataclass(Part)


# From JSON


def test_omitted_values_have_their_defaults():
    assert from_plain(Whole, {"name": "x", "part": {"rate": 1}}) == Whole(name="x", part=Part(rate=1.0))


WRONG_PLAIN = [
    ([], "it holds no settings by name."),
    ("x", "it holds no settings by name."),
    ({}, "the setting name is missing."),
    ({"name": "x", "b": 1, "a": 2}, "it has unknown settings: a, b."),
    ({"name": "x", "part": {"raet": 1.0}}, "it has unknown settings: raet."),
    ({"name": "x", "part": "lab"}, "part must be a JSON object. Received: part='lab'"),
    ({"name": "x", "part": None}, "part must be a JSON object. Received: part=None"),
    ({"name": "x", "part": {"rate": 0}}, "rate must be above 0.0 and 10.0 at most. Received: rate=0"),
    ({"name": "x", "part": {"rate": "1e-3"}}, "rate must be a number. Received: rate='1e-3'"),
    ({"name": "x", "share": float("nan")}, "share must be 0.0 or more and below 1.0. Received: share=nan"),
    ({"name": "x", "count": 1.5}, "count must be a whole number. Received: count=1.5"),
    ({"name": "x", "count": True}, "count must be a whole number. Received: count=True"),
    ({"name": "x", "maybe": "2"}, "maybe must be a whole number or null. Received: maybe='2'"),
    ({"name": "x", "flag": 1}, "flag must be true or false. Received: flag=1"),
    ({"name": "x", "channels": 1.0}, "channels must be a whole number or null. Received: channels=1.0"),
    ({"name": "x", "channels": True}, "channels must be a whole number or null. Received: channels=True"),
    ({"name": "x", "sides": [1, 2, 3]}, SIDES.replace("None", "null") + "[1, 2, 3]"),
    ({"name": "x", "sides": [1, 0]}, "sides must be 1 or more. Received: sides=[1, 0]"),
    ({"name": "x", "changes": []}, "changes must be a JSON object. Received: changes=[]"),
]


@pytest.mark.parametrize(("plain", "message"), WRONG_PLAIN)
def test_wrong_json(plain, message):
    with pytest.raises(InputError) as caught:
        from_plain(Whole, plain)
    assert str(caught.value) == message


def test_the_result_of_to_plain_can_be_json():
    plain = to_plain(Whole(name="x", sides=(2, 3), folder=Path("runs"), share=0))
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["sides"], plain["folder"], plain["share"]) == ([2, 3], "runs", 0.0)
    assert plain["part"] == {"rate": 0.5, "low": 0, "high": 1}


# Types and limits as text


def test_the_docstring_below_a_field_is_its_help():
    assert helps(Part) == {"rate": "per step", "low": "", "high": ""}
    assert helps(Whole)["name"].split() == ["what", "it", "is", "called"]


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int, None),
        (Count, "1 or more"),
        (Count | None, "1 or more"),
        (Seed, "0 or more and 2147483647 at most"),
        (Annotated[float, Field(gt=0.0)], "above 0.0"),
        (Annotated[float, Field(ge=0.0, lt=1.0)], "0.0 or more and below 1.0"),
        (Annotated[int, Field(le=3)], "3 at most"),
        (Shape, "1 or more"),
        (str | None, None),
    ],
)
def test_limits_as_text(hint, text):
    assert limits(hint) == text


@pytest.mark.parametrize(
    ("hint", "text", "of_json"),
    [
        (Count, "a whole number", "a whole number"),
        (float | None, "a number or None", "a number or null"),
        (bool, "true or false", "true or false"),
        (Literal[1, "x"], "one of 1, 'x'", "one of 1, 'x'"),
        (tuple[str, ...], "a list", "a list"),
        (Shape, "a list of 3 whole numbers", "a list of 3 whole numbers"),
        (dict[str, Any], "a dict", "a JSON object"),
        (Part, "a Part", "a JSON object"),
        (InputError, "an InputError", "an InputError"),
        (Path, "a path", "a path"),
    ],
)
def test_types_as_text(hint, text, of_json):
    assert (words(hint), words(hint, from_json=True)) == (text, of_json)


@validated
class Paths:
    """Paths as text."""

    one: Text | None = None
    other: Text = ""


@pytest.mark.parametrize("path", ["caf\udce9/\udcff", "é", 'a"\n', "\U0001f980", None, "\\udce9"])
def test_a_path_that_is_not_utf8_comes_back_from_json(path):
    paths = Paths(path, other="x")
    assert from_plain(Paths, json.loads(json.dumps(to_plain(paths)))) == paths
    assert paths.one == path
