"""On torch, `jit_compile=True` trains by compiled graphs: the weights are those of the plain path.

The oracle is the same model without `jit_compile`. Most cases run the exported graph as it is, for time: its
results are equal to the last bit. Those of the compiler follow at the end.
"""

import copy
import functools
import os
import pickle
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_vit.model.vit import ViT
from tests.helpers.checks import to_numpy

if keras.backend.backend() != "torch":
    pytest.skip("the compiled step is for torch", allow_module_level=True)

import torch

from keras_vit.model import torch_graphs

COMPILE = torch.compile
RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 8, 8, 1)).astype("float32")
Y = np.eye(3, dtype="float32")[np.arange(10) % 3]
DROPOUT = dict(dropout_rate=0.2, attention_dropout_rate=0.1, drop_path_rate=0.3)


def new_model(cls=ViT, **changes):
    keras.utils.set_random_seed(0)
    arguments = dict(
        image_shape=(8, 8, 1), num_classes=3, patch_size=4, dim=8, depth=1, num_heads=2, mlp_dim=16
    )
    return cls(**{**arguments, "dropout_rate": 0.0, **changes})


def compiled(model, jit=True, optimizer=None, **arguments):
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    # Not Adam: it divides gradients by themselves, so the rounding of those near 0 shows.
    optimizer = optimizer() if optimizer else keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=jit, **arguments)
    return model


def fit(model, epochs=2, **arguments):
    given = dict(batch_size=4, shuffle=False, verbose=0)
    return model.fit(X, Y, epochs=epochs, **{**given, **arguments}).history


def graphs_of(model):
    graphs = getattr(model, "_training_graphs", None)
    return [] if graphs is None else list(graphs.graphs.values())


def assert_same(one, other, rtol=0.0):
    for own, wanted in zip(one.variables, other.variables, strict=True):
        np.testing.assert_allclose(to_numpy(own), to_numpy(wanted), rtol=rtol, atol=rtol, err_msg=own.path)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_VIT_CACHE", str(tmp_path))
    monkeypatch.setenv(torch_graphs.FOLDER, str(tmp_path / "torch"))
    monkeypatch.setattr(torch, "compile", lambda function, **arguments: function)


SGD = keras.optimizers.SGD
MODELS = {
    "plain": {},
    "dropout": dict(depth=2, **DROPOUT),
    "batch norm": dict(stem="conv"),
    "two vectors": dict(pooling="token+gap", head_hidden_dim=8, position="sincos2d", **DROPOUT),
}
RATE = keras.optimizers.schedules.CosineDecay(0.0, 6, warmup_target=0.1, warmup_steps=3)
AVERAGE = dict(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
COMPILED = {
    "schedule, clipping, decay and average": lambda: SGD(
        RATE, global_clipnorm=0.1, weight_decay=0.01, **AVERAGE
    ),
    "accumulation": lambda: SGD(0.1, gradient_accumulation_steps=2),
    "loss scaling": lambda: keras.optimizers.LossScaleOptimizer(SGD(0.1)),
}


@pytest.mark.parametrize("case", MODELS)
def test_trains_as_without_compilation(case):
    model, plain = compiled(new_model(**MODELS[case])), compiled(new_model(**MODELS[case]), jit=False)
    history, wanted = fit(model), fit(plain)
    assert_same(model, plain)  # the random states of dropout, and the statistics of batch norms, too
    for name in wanted:
        np.testing.assert_allclose(history[name], wanted[name], rtol=1e-5)
    (graph,) = graphs_of(model)  # the last batch, of two images, has none
    assert len(graph.draws) == {"dropout": 11, "two vectors": 6}.get(case, 0)
    assert model.jit_compile is True


@pytest.mark.parametrize("case", COMPILED)
def test_the_optimizer_is_that_of_keras(case):
    model, plain = (compiled(new_model(**DROPOUT), jit, COMPILED[case]) for jit in (True, False))
    fit(model), fit(plain)
    assert_same(model, plain)
    assert_same(model.optimizer, plain.optimizer)


@pytest.mark.parametrize(
    "given",
    [
        dict(sample_weight=np.linspace(0, 2, 10), validation_split=0.4),
        dict(class_weight={0: 1.0, 1: 3.0, 2: 0.5}),
    ],
    ids=["sample_weight", "class_weight"],
)
def test_arguments_of_fit(given):
    model, plain = compiled(new_model()), compiled(new_model(), jit=False)
    history, wanted = fit(model, **given), fit(plain, **given)
    assert_same(model, plain)
    for name in wanted:
        np.testing.assert_allclose(history[name], wanted[name], rtol=1e-5)


def test_half_precision():
    model, plain = (compiled(new_model(dtype="mixed_bfloat16", **DROPOUT), jit) for jit in (True, False))
    fit(model), fit(plain)
    assert_same(model, plain, rtol=0.0)
    assert len(graphs_of(model)) == 1


def test_weights_that_are_frozen_between_two_fits():
    model, plain = compiled(new_model(**DROPOUT)), compiled(new_model(**DROPOUT), jit=False)
    for one in (model, plain):
        fit(one, epochs=1)
        before = to_numpy(one.get_layer("block_0").weights[0]).copy()
        one.get_layer("block_0").trainable = False
        one.optimizer = None
        compiled(one, one is model)
        fit(one, epochs=1)
        np.testing.assert_array_equal(to_numpy(one.get_layer("block_0").weights[0]), before)
    assert_same(model, plain)


def test_weights_that_a_callback_freezes_during_fit():
    class Freeze(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.get_layer("block_0").trainable = epoch == 0

    model, plain = compiled(new_model(**DROPOUT)), compiled(new_model(**DROPOUT), jit=False)
    fit(model, callbacks=[Freeze()]), fit(plain, callbacks=[Freeze()])
    assert_same(model, plain)
    assert len(graphs_of(model)) == 2


def test_a_loaded_model_goes_on_as_if_it_had_not_stopped(tmp_path):
    whole, first = compiled(new_model(**DROPOUT)), compiled(new_model(**DROPOUT))
    fit(whole, epochs=2), fit(first, epochs=1)
    first.save(tmp_path / "first.keras")
    second = keras.models.load_model(tmp_path / "first.keras")
    assert second.jit_compile is True
    for new, old in zip(second.variables, first.variables, strict=True):
        new.assign(old)  # Keras's file lacks the random states, which the checkpoints of this package have
    fit(second, epochs=2, initial_epoch=1)
    assert len(graphs_of(second)) == 1
    assert_same(second, whole)


def test_backup_and_restore(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    whole, model = compiled(new_model()), compiled(new_model())
    fit(whole)
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup"), Stop()])
    model = compiled(new_model())
    fit(model, callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup")])
    assert_same(model, whole)


def test_each_fit_has_a_graph_for_its_first_batch_and_a_larger_one():
    model, plain = compiled(new_model(**DROPOUT)), compiled(new_model(**DROPOUT), jit=False)
    for one in (model, plain):
        fit(one, 1, batch_size=2), fit(one, 1, batch_size=4), fit(one, 1, batch_size=2)
        for size in (1, 2, 8, 3, 5, 6, 7):
            one.train_on_batch(X[:size], Y[:size])
    assert_same(model, plain)
    assert [key[0][0] for key in model._training_graphs.graphs] == [2, 4, 1, 8]


def test_copies_of_a_trained_model():
    model = compiled(new_model())
    fit(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), keras.models.clone_model(model)):
        assert graphs_of(other) == []
        assert len(other.variables) == len(model.variables)
    assert_same(copy.deepcopy(model), model)


def test_only_training_is_compiled():
    model = compiled(new_model(**DROPOUT))
    model.evaluate(X, Y, verbose=0), model.predict(X, verbose=0), model.test_on_batch(X, Y)
    model(X, training=True)
    assert graphs_of(model) == []


def test_classes_of_the_user():
    class OwnLoss(ViT):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return super().compute_loss(x, y, y_pred, sample_weight) + 0.1 * keras.ops.mean(y_pred**2)

    class OwnCall(ViT):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training, mask=mask)

    class OwnStep(ViT):
        def train_step(self, data):
            x, y = data[:2]
            self.zero_grad()
            loss = self.compute_loss(x, y, self(x, training=True))
            loss.backward()
            with torch.no_grad():
                self.optimizer.apply([one.value.grad for one in self.trainable_variables])
            return {"loss": loss}

    for cls, graphs in ((OwnLoss, 1), (OwnCall, 1), (OwnStep, 0)):
        model, plain = (compiled(new_model(cls, **DROPOUT), jit) for jit in (True, False))
        for one in (model, plain):
            one.optimizer.build(one.trainable_variables)
            fit(one)
        assert_same(model, plain)
        assert len(graphs_of(model)) == graphs, cls


def no_export(*args, **kwargs):
    raise RuntimeError("cannot export\nand more")


def no_compiler(*args, **kwargs):
    def run(*args):
        raise RuntimeError("no C++ compiler\nand more")

    return run


def wrong_compiler(function, **kwargs):
    def run(values, *rest):
        outputs, new = function([value * 1.01 for value in values], *rest)
        return outputs, new

    return run


@pytest.mark.parametrize(
    ("changes", "patched", "line", "graphs"),
    [
        (dict(remat=True), {}, "vit trains without a compiled step: remat=True, ", 0),
        ({}, {"export.export": no_export}, "vit trains without a compiled step: cannot export\n", 0),
        ({}, {"compile": no_compiler}, "This failed, so it runs without: no C++ compiler\n", 1),
        ({}, {"compile": wrong_compiler}, " from the plain ones, so it is not used.\n", 1),
    ],
    ids=["remat", "no export", "no compiler", "wrong gradients"],
)
def test_without_a_compiled_graph_it_trains_as_before(changes, patched, line, graphs, monkeypatch, capsys):
    model, plain = compiled(new_model(**changes)), compiled(new_model(**changes), jit=False)
    for name, instead in patched.items():
        where, _, last = f"torch.{name}".rpartition(".")
        monkeypatch.setattr(f"{where}.{last}", instead)
    fit(model), fit(plain)
    assert_same(model, plain)  # to the last bit, also by a graph that is not compiled
    assert len(graphs_of(model)) == graphs
    assert capsys.readouterr().out.count(line) == 1


def test_a_loss_that_a_layer_adds_is_kept(capsys):
    def own():
        model = new_model()
        model.get_layer("head").activity_regularizer = keras.regularizers.L2(0.1)
        return model

    model, plain = compiled(own()), compiled(own(), jit=False)
    fit(model), fit(plain)
    assert_same(model, plain)
    assert "vit trains without a compiled step: a layer adds a loss\n" in capsys.readouterr().out


def test_compile_again_begins_again():
    model = compiled(new_model())
    fit(model, 1)
    before = model._training_graphs
    compiled(model, jit=False)
    fit(model, 1)
    assert model._training_graphs is before
    compiled(model)
    fit(model, 1)
    assert model._training_graphs is not before


def test_graphs_are_kept_in_the_cache_folder(monkeypatch, tmp_path):
    assert torch_graphs.kept_in() == str(tmp_path / "torch")  # that of the user
    monkeypatch.setenv(torch_graphs.FOLDER, os.path.join(tempfile.gettempdir(), "torchinductor_somebody"))
    monkeypatch.setenv("KERAS_VIT_CACHE", str(tmp_path / "cache"))
    found = Path(torch_graphs.kept_in())
    assert found.parent == tmp_path / "cache" / torch_graphs.TORCH_GRAPHS
    assert os.environ[torch_graphs.FOLDER] == str(found)
    found.mkdir(parents=True)
    (found / "graph").write_bytes(bytes(100))
    (tmp_path / "cache" / "other").write_bytes(bytes(100))
    torch_graphs.kept_in()
    assert (found / "graph").exists()
    monkeypatch.setattr(torch_graphs, "MOST_BYTES", 99)
    torch_graphs.kept_in()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["other"]


def test_a_compiler(capsys, tmp_path, monkeypatch):
    # It makes the graphs that the default compiler makes; the C++ of that one takes half a minute, and each
    # model compares its gradients with the plain ones.
    monkeypatch.setattr(torch, "compile", functools.partial(COMPILE, backend="aot_eager"))
    model, plain = compiled(new_model(**DROPOUT)), compiled(new_model(**DROPOUT), jit=False)
    fit(model), fit(plain)
    assert_same(model, plain, rtol=1e-5)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"Compiling the training step of vit for 4 images (kept in {tmp_path / 'torch'})."
    assert shown[1].startswith("This took ")
