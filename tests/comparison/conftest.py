import pytest

from tests.helpers import tiny


@pytest.fixture
def small_models(monkeypatch):
    """Models that train in a second: `defect` and `defect-conv` are the tiny ViT of the tests."""
    from keras_vit.comparison import candidates, convolutional, trainer
    from keras_vit.model.config import SIZES
    from keras_vit.training import optimizer

    monkeypatch.setitem(SIZES, "defect-conv", SIZES["defect-tiny"])
    monkeypatch.setitem(SIZES, "defect", SIZES["defect-tiny"])
    monkeypatch.setattr(convolutional, "BLOCKS", 1)
    monkeypatch.setattr(
        candidates, "plain_cnn", lambda *given: convolutional.plain_cnn(*given, widths=(4, 8))
    )
    monkeypatch.setattr(trainer, "latencies", lambda *given: {"one": 0.002, "each_of_32": 0.001})
    monkeypatch.setattr(trainer, "TIMED_STEPS", 1)
    if tiny.BACKEND == "tensorflow":  # compiling takes longer than these trainings
        monkeypatch.setattr(optimizer, "choose_xla", lambda *given: False)


@pytest.fixture
def compare(tiny_size, small_models, capsys):
    """The exit code and the output of `keras-vit compare` with these words, and its errors."""

    def run(*words):
        capsys.readouterr()
        code = tiny.code_of(["compare", *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def source(made_once):
    """A folder of published weights, as for the tests of training."""
    from tests.helpers.sources import timm_folder

    return made_once("source", timm_folder)


@pytest.fixture(scope="session")
def colours(made_once):
    """A folder of colour images in class folders."""
    from tests.helpers.sources import draw_colours

    return made_once("colours", draw_colours)
