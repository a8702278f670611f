"""The benchmark of speed: who takes part, and what the page makes of the turns."""

import json

import pytest

from benchmarks.commands import BEFORE, FINETUNE, FIRST, NOW
from benchmarks.speed import page
from benchmarks.speed.bounds import PEAK, PRODUCTS
from benchmarks.speed.processes import Process, take_turns
from benchmarks.speed.works import CELLS, WORKS, Cell, as_arguments, variants
from keras_vit.model.config import variant_arguments

pytestmark = pytest.mark.same_on_every_backend

RATES = {
    "ours tensorflow": [120.0, 60.0, 240.0],
    "ours jax": [50.0, 25.0, 100.0],
    "keras-hub jax": [20.0, 10.0, 40.0],
    "vit-pytorch": [90.0, 45.0, 180.0],
    "vit-pytorch compiled": [100.0, 60.0, 150.0],
    PRODUCTS: [200.0, 100.0, 400.0],
    PEAK: [1.0, 1.0, 1.0],
}


def command(name, package, backend, seconds, accuracy):
    names = ("command", "package", "backend", "wall_s", "accuracy")
    return dict(zip(names, (name, package, backend, seconds, accuracy), strict=True))


@pytest.mark.parametrize("name", WORKS)
def test_other_packages_get_the_sizes_of_ours(name):
    work, sizes = WORKS[name], variant_arguments(WORKS[name].variant)
    theirs = {key: getattr(work, key) for key in ("depth", "dim", "num_heads", "mlp_dim", "patch_size")}
    assert theirs == {key: sizes[key] for key in theirs}


@pytest.mark.parametrize(
    ("work", "there", "not_there"),
    [
        ("heads16", {"timm compiled", "keras-hub torch", "transformers"}, set()),
        ("defect", {"vit-pytorch", "vit-pytorch compiled"}, {"timm", "transformers", "keras-hub jax"}),
        ("conv", {"ours jax"}, {"vit-pytorch"}),
    ],
)
def test_who_takes_part(work, there, not_there):
    found = set(variants(Cell(work)))
    assert there <= found
    assert not not_there & found


def test_a_ratio_is_that_of_the_turns():
    """A machine that is twice as slow in a turn changes no ratio."""
    assert page.ratio(RATES["ours tensorflow"], RATES["vit-pytorch"])[0] == pytest.approx(120 / 90)
    assert page.ratio([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]) == (2.0, 1.5, 2.5)
    assert page.ratio([3.0], [2.0]) == (1.5, 1.5, 1.5)


def test_goals_name_the_variants_and_whether_they_are_met(tmp_path):
    cell = Cell("heads16", threads=page.GOAL_THREADS)
    results = {
        cell.title: {
            "rates": {"train": RATES},
            "failed": {"ours torch": "no compiler"},
            "machine": "M",
            "date": "2026-11-26",
        },
        "latency": {
            "rows": [
                {"name": "keras_vit.predict", "cores": 1, "ms": 1.234, "ratio": 1.6, "spread": (1.0, 2.0)},
                {"name": "keras_vit.predict", "cores": 2, "ms": 1.0, "ratio": 2.5, "spread": (2.0, 3.0)},
            ],
            "machine": "M",
            "date": "2026-11-26",
        },
        "commands": {
            "rows": [
                command(FIRST, NOW, "tensorflow", 29.0, 0.953),
                command(FIRST, BEFORE, "tensorflow", 56.0, 0.861),
                command(FINETUNE, NOW, "tensorflow", 290.0, 1.0),
                command(FINETUNE, NOW, "torch", 250.0, 0.997),
            ],
            "machine": "M",
            "date": "2026-11-26",
        },
    }
    page.write_page(json.loads(json.dumps(results)), tmp_path / "speed.md", tmp_path / "speed.png")
    text = (tmp_path / "speed.md").read_text()
    best = (
        "| best of ours / best peer: head width 16, float32 | ours tensorflow / vit-pytorch compiled | 1.2 | "
    )
    assert best + "1.20 (1.10 to 1.40) | yes |" in text
    assert "| ours jax / keras-hub jax | 2.0 | 2.50 (2.50 to 2.50) | yes |" in text
    assert "| 0.6 | 0.60 (0.60 to 0.60) | yes |" in text
    assert "ours torch failed: no compiler" in text
    assert "| keras_vit.predict | 1 | 1.23 | 1.60 | 1.00 to 2.00 |" in text
    assert "1 core | keras_vit.predict / onnxruntime | 0.5 | 0.625 | yes |" in text
    assert "2 cores | keras_vit.predict / onnxruntime | 0.5 | 0.4 | **no** |" in text
    assert "| the first command, seconds | now / before | 0.5 | 0.518 | **no** |" in text
    assert "| the first command, share of test images right |  | 0.95 | 0.953 | yes |" in text
    assert "| fine-tuning, seconds | torch | 300 | 250 | yes |" in text
    assert "| fine-tuning, share of test images right | torch | 1.0 | 0.997 | **no** |" in text
    assert (tmp_path / "speed.png").stat().st_size > 1000


@pytest.mark.long
def test_processes_take_turns():
    """A bound needs nothing but torch, and says in one line why a variant fails."""
    pytest.importorskip("torch")
    work = {**as_arguments(Cell("batch1", threads=1)), "images": 8}
    with Process(PRODUCTS, work, 0.01) as products, Process("no such package", work, 0.01) as other:
        assert products.is_ready()
        assert not other.is_ready()
        assert "no_such_package" in other.error or "no such package" in other.error
        found = take_turns([products, other], "train", 2)
    assert list(found) == [PRODUCTS]
    assert all(rate > 0 for rate in found[PRODUCTS])


def test_every_work_is_measured():
    assert {cell.work for cell in CELLS} == set(WORKS)
