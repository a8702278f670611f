"""How a model is trained, as plain values. Nothing here imports Keras: the command line reads it first."""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field

from keras_vit.data.augmentation import Augmentation
from keras_vit.errors import InputError
from keras_vit.validation import Count, Text, validated

Precision = Literal["float32", "mixed_bfloat16", "mixed_float16", "auto"]
Tune = Literal["all", "head", "lora"]
LoraTarget = Literal["qkv", "projection", "mlp"]
Sampling = Literal["uniform", "balanced"]
BestBy = Literal["accuracy", "balanced_accuracy", "macro_f1", "average_precision", "loss"]
AVERAGE_PRECISION: BestBy = "average_precision"
ASYMMETRIC = "asymmetric"
BALANCED, EFFECTIVE = "balanced", "effective"
"""Values of `class_weights` that name no file."""


@validated
class Recipe:
    """Optimizer, schedule, loss, regularisation and length of a training run.

    The defaults suit a few thousand images and minutes on two cores. `RECIPES` has the named ones.

    Raises:
        InputError: a value is of another type, or out of its range.
    """

    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    """sgd has a Nesterov momentum of 0.9"""
    learning_rate: Annotated[float, Field(gt=0.0, le=10.0)] = 2e-3
    """the highest one of the schedule"""
    schedule: Literal["constant", "cosine"] = "cosine"
    """cosine falls to zero at the last step"""
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 3.0
    """epochs in which the learning rate rises linearly from 0; at most half of the run"""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """of AdamW; not applied to biases, norms, positions and tokens"""
    clip_norm: Annotated[float, Field(gt=0.0)] | None = 1.0
    """largest norm of the gradient of all weights together"""
    loss: Literal["cross_entropy", "asymmetric"] = "cross_entropy"
    """with several labels per image cross_entropy is binary, each label by itself; asymmetric (Ridnik et al.
    2021) is for many labels of which images have few, and has no label smoothing"""
    label_smoothing: Annotated[float, Field(ge=0.0, le=0.99)] = 0.1
    """share of the target that is spread over all classes"""
    class_weights: Text | None = None
    """weights of the classes in the loss: balanced, effective (Cui et al. 2019), or a CSV or JSON file of
    class and weight; their mean over the training images becomes 1"""
    sampling: Literal["auto", "uniform", "balanced"] = "auto"
    """balanced draws each class equally often; auto does that for classes that are very uneven, without
    class weights"""
    best_by: BestBy = "accuracy"
    """validation figure that chooses the best epoch; of equal ones, the loss; with several labels per image
    accuracy stands for average_precision"""
    ema_decay: Annotated[float, Field(gt=0.0, le=0.99999)] | None = None
    """evaluate and keep a moving average of the weights with this decay per step, such as 0.99"""
    epochs: Count = 30
    """passes over the training images"""
    batch_size: Count = 32
    """images per step"""
    early_stopping: Count | None = None
    """stop after this many epochs without a better one, see best_by"""
    precision: Precision = "float32"
    """mixed_bfloat16 is faster on recent GPUs; auto takes it where the hardware has fast products for it"""
    xla: bool | None = None
    """compile with XLA, or torch.compile; by default where it is safe and pays (JAX always compiles)"""
    tune: Tune = "all"
    """which weights are trained: all, those of the head, or low-rank additions to the kernels (lora)"""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """learning rate and weight decay of a block, as a share of those of the block above it, such as 0.75"""
    unfrozen_blocks: Annotated[int, Field(ge=0)] | None = None
    """train only the head and this many of the last blocks; by default everything"""
    unfreeze_every: Annotated[float, Field(gt=0.0)] | None = None
    """begin with the head, and train one block more after each time of so many epochs"""
    lora_rank: Count = 4
    """rank of the additions to a kernel, with --tune lora"""
    lora_on: Annotated[tuple[LoraTarget, ...], Field(min_length=1, strict=False)] = ("qkv", "projection")
    """kernels that get an addition, with --tune lora: those of the attention (qkv, projection), of the MLP"""
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self):
        repeated = [name for name in self.lora_on if self.lora_on.count(name) > 1]
        if repeated:
            raise InputError(f"lora_on must name each kernel once. Received: lora_on={self.lora_on}")
        for name in ("unfrozen_blocks", "unfreeze_every"):
            value = getattr(self, name)
            if value is not None and self.tune != "all":
                raise InputError(
                    f'{name} is for tune="all": with tune="{self.tune}" every block stays as it is. '
                    f"Received: {name}={value}"
                )


RECIPES = {
    # The study that this package began with: there 78 % at the last epoch of seed 0 and 83 % at its best.
    "lab": Recipe(
        optimizer="adam",
        learning_rate=3e-4,
        schedule="constant",
        warmup_epochs=0.0,
        weight_decay=0.0,
        clip_norm=None,
        label_smoothing=0.0,
        batch_size=64,
        epochs=30,
    ),
    # Chosen on validation images of NEU; docs/decisions.md has the figures. Brightness and the rolling
    # direction distinguish these classes: changing them at random costs accuracy.
    "default": Recipe(augmentation=Augmentation(flip="both", crop=0.1)),
    # For the drawn defects, which defect-pool/8 learns in fewer epochs.
    "drawn": Recipe(warmup_epochs=1.0, epochs=12, augmentation=Augmentation(flip="both", crop=0.1)),
    # For images that may be noisy, blurred or lit differently: about half of them are corrupted copies. Twice
    # the epochs, because the loss still falls after 30.
    "robust": Recipe(epochs=60, augmentation=Augmentation(flip="both", crop=0.1, corrupted_copies=8)),
    # From published weights: a classifier of features that are computed once. Nothing is trained by steps.
    # Mirror images are added where there are few images per class.
    "probe": Recipe(tune="head", epochs=1, augmentation=Augmentation(flip="both")),
    # From published weights, with the head of the probe: all weights, the lower ones more slowly. Layer-wise
    # decay as in BEiT (Bao et al. 2021, https://arxiv.org/abs/2106.08254).
    "finetune": Recipe(
        learning_rate=5e-4,
        warmup_epochs=0.6,
        layer_decay=0.75,
        epochs=6,
        augmentation=Augmentation(flip="both", crop=0.15),
    ),
    # From published weights: Hu et al. 2021, https://arxiv.org/abs/2106.09685. On 360 validation images of
    # NEU (112 pixels, 360 for training) rates of 1e-3 to 1.6e-2 end within one image of each other; from 8e-3
    # on, the first epochs spoil the head of the probe.
    "lora": Recipe(
        tune="lora",
        learning_rate=2e-3,
        warmup_epochs=0.6,
        epochs=6,
        augmentation=Augmentation(flip="both", crop=0.15),
    ),
}

RECIPE_CHANGES: Mapping[str, Mapping[str, Any]] = {"finetune": {"drop_path_rate": 0.1}}
"""By recipe, the arguments of `ViTConfig` that belong to it and are not fields of `Recipe`."""

PRETRAINED_RECIPES = ("probe", "finetune", "lora")
"""The recipes that begin with published weights."""
