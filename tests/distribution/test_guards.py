"""Cases that would differ from one device, or fail during a run, are refused before the first step."""

import json

import pytest

from tests.distribution.processes import BACKEND, finish, start

NOT_REFUSED = None
REFUSED_EVERYWHERE = {
    "weighted_mean_of_losses": "A loss with reduction='mean_with_sample_weight' differs from one device",
    "partial_batch_of_a_dataset": "batch it with drop_remainder=True",
    "indivisible_batch": "A batch of 3 images cannot be shared equally by 2 devices: use a batch size of 2",
    "validation_split": "Without arrays, validation_split does not work on several devices",
    "within_another": "This distribute() is inside another one: leave that one first",
    "partial_batch_for_another_model": "batch it with drop_remainder=True",
}
ARRAYS = {
    "partial_batch_of_arrays": "The last batch of 6 has only 4 of 16 images",
    "indivisible_batch_of_arrays": "A batch of 5 images cannot be shared equally by 2 devices",
    "a_generator": "takes arrays or a tf.data.Dataset. Received: x=list_iterator",
}
OUTSIDE = {
    "model_from_outside": "This model was built outside of this distribute()",
    "compiled_model_from_outside": "This model was built outside of this distribute()",
}
ONE_PROCESS = {
    **ARRAYS,
    **OUTSIDE,
    "optimizer_from_outside": "This optimizer was made outside of distribute(): make it inside",
    "too_many_devices": "devices",
}
SPLIT = ("split_model", "split_model_without_biases", "rule_without_a_match", "indivisible_kernel")
NO_SPLIT_MODELS = dict.fromkeys(SPLIT, "use the JAX backend")
EXPECTED = {
    "tensorflow": {
        **REFUSED_EVERYWHERE,
        **ONE_PROCESS,
        **NO_SPLIT_MODELS,
        "indivisible_devices": "use the JAX backend",
        "sum_of_losses": NOT_REFUSED,  # Keras sums over the replicas
        "xla": "jit_compile=True does not work under MirroredStrategy",
        "steps_per_execution": "steps_per_execution=2 does not work under MirroredStrategy",
        "gradient_accumulation": "gradient_accumulation_steps does not work under MirroredStrategy",
        "scaled_loss": NOT_REFUSED,
        "too_many_devices": "TensorFlow has started with 2 CPU devices, it is too late for 64",
        "keras_distribution": "keras.distribution does nothing on the tensorflow backend",
        "central_storage": "TensorFlow's own CentralStorageStrategy",
        "layers_in_central_storage": "TensorFlow's own CentralStorageStrategy",
        "own_mirrored": NOT_REFUSED,
        "own_mirrored_with_batches_of_5": NOT_REFUSED,
        "own_mirrored_with_validation_split": NOT_REFUSED,
        "copies_in_own_mirrored": NOT_REFUSED,
        "keras_tuner_in_own_mirrored": NOT_REFUSED,
        "another_model_in_own_mirrored": NOT_REFUSED,
        "own_mirrored_and_distribute": "This distribute() is inside your own MirroredStrategy",
        "own_mirrored_with_xla": "jit_compile=True does not work under MirroredStrategy",
        "own_mirrored_with_gradient_accumulation": "does not work under MirroredStrategy",
        "model_in_own_mirrored_from_outside": "This model was built outside of this MirroredStrategy",
        "xla_for_another_model": "jit_compile=True does not work under MirroredStrategy",
        "batch_norm_of_keras": "'norm' would normalise the share of each device by itself",
    },
    "jax": {
        **REFUSED_EVERYWHERE,
        **ONE_PROCESS,
        "xla": NOT_REFUSED,
        "xla_for_another_model": NOT_REFUSED,
        "batch_norm_of_keras": NOT_REFUSED,
        "steps_per_execution": NOT_REFUSED,
        "gradient_accumulation": NOT_REFUSED,
        "scaled_loss": NOT_REFUSED,
        "sum_of_losses": NOT_REFUSED,  # JAX computes the loss of the whole batch
        "weighted_mean_of_losses": NOT_REFUSED,
        "split_model": NOT_REFUSED,
        "split_model_without_biases": NOT_REFUSED,
        "rule_without_a_match": "The layout rule '.*expert.*' matches no weight of this model",
        "indivisible_kernel": "mlp/expand/kernel of shape (8, 15) cannot be split over 2 devices",
        "indivisible_devices": "model_devices=3 does not divide the 2 devices of a process",
        "too_many_devices": "devices=64 is more than the 2 that JAX has here",
    },
    "torch": {
        **REFUSED_EVERYWHERE,
        **NO_SPLIT_MODELS,
        "indivisible_devices": "use the JAX backend",
        "sum_of_losses": "A loss with reduction='sum' differs from one device",
        "xla": "jit_compile=True does not work under torch.distributed",
        "steps_per_execution": "steps_per_execution=2 does not work under torch.distributed",
        "gradient_accumulation": NOT_REFUSED,
        "scaled_loss": NOT_REFUSED,
        **ARRAYS,
        **dict.fromkeys(OUTSIDE, NOT_REFUSED),  # the group of processes is the same inside and outside
        "xla_for_another_model": "jit_compile=True does not work under torch.distributed",
        "batch_norm_of_keras": "'norm' would normalise the share of each device by itself",
        "train_step_with_another_optimizer": "differs between the processes after a step of Model",
        "validation_by_a_sampler": "validation_data gives every process the result for all images",
        "evaluate_by_a_sampler": "evaluate gives every process the result for all images",
        "predict_by_a_sampler": "predict gives every process the result for all images",
        "loader_without_a_sampler": "This DataLoader gives every process all images",
        "optimizer_from_outside": NOT_REFUSED,  # the optimizer makes its variables for the first model
        "too_many_devices": "torchrun started 2 processes on this machine",
        "keras_distribution": "keras.distribution does nothing on the torch backend",
    },
}[BACKEND]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The message of each case."""
    file = tmp_path_factory.mktemp("guards") / "found.json"
    finish(start("provoke", file, count=2 if BACKEND == "torch" else None))
    return json.loads(file.read_text())


@pytest.mark.parametrize("name", EXPECTED)
def test_refused_with_the_reason(found, name):
    expected = EXPECTED[name]
    if expected is NOT_REFUSED:
        assert found[name] is None
    else:
        assert found[name] is not None
        assert expected in found[name]


def test_every_case_has_an_expected_result(found):
    assert found.keys() == EXPECTED.keys()
