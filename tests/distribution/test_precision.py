"""`--precision auto`: what is taken on which hardware, and that a run records it."""

import keras
import pytest

from keras_vit.distribution import precision
from keras_vit.distribution.precision import precision_for

BACKEND = keras.backend.backend()


@pytest.mark.parametrize(
    ("capabilities", "has_amx", "bfloat16"),
    [
        ([(8, 0)], False, True),
        ([(9, 0), (10, 0)], False, True),
        ([(7, 5)], True, False),
        ([(9, 0), (7, 0)], False, False),
        ([], False, False),
        ([], True, BACKEND == "torch"),
    ],
)
def test_bfloat16_only_where_it_is_fast(capabilities, has_amx, bfloat16, monkeypatch):
    monkeypatch.setattr(precision, "_capabilities", lambda backend: capabilities)
    monkeypatch.setattr(precision, "processor_flags", lambda: ["amx_bf16"] if has_amx else [])
    name, line = precision_for("auto")
    assert name == ("mixed_bfloat16" if bfloat16 else "float32")
    assert line.startswith(f"precision: {name} (")
    assert line.endswith("); --precision chooses another")


@pytest.mark.parametrize("name", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_what_is_named_is_taken_without_a_word(name):
    assert precision_for(name) == (name, None)


def test_the_machine_is_asked():
    assert precision_for("auto")[0] in ("float32", "mixed_bfloat16")
