"""One variant in a process of its own: it prepares, then runs a round for each line that it reads.

Lines in are `train` or `infer`; a line out is JSON with images per second. The last two lines of a failed
process say why. Importing this is cheap; `Keras` and `Torch` import what they measure.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

CLOCK = time.process_time if os.environ.get("SPEED_CLOCK") == "cpu" else time.perf_counter
"""CPU seconds of all threads are less noisy where other work shares the machine."""


class Variant:
    """What all share: a round is so many passes over the images that it takes about `seconds`."""

    def __init__(self, who: str, work: dict[str, Any], seconds: float):
        self.who, self.work, self.seconds = who, work, seconds
        size, channels = work["image_size"], work["channels"]
        count = work["images"]
        random = np.random.default_rng(0)
        self.images = random.uniform(-1, 1, (count, size, size, channels)).astype("float32")
        self.labels = random.integers(0, work["num_classes"], count)
        self.passes: dict[str, int] = {}
        self.prepare()

    def prepare(self) -> None:
        raise NotImplementedError

    def train(self, passes: int) -> None:
        raise NotImplementedError

    def infer(self, passes: int) -> None:
        raise NotImplementedError

    def round(self, what: str) -> float:
        """Images per second."""
        run: Callable[[int], None] = getattr(self, what)
        if what not in self.passes:
            run(1)  # compiles
            begin = time.perf_counter()
            run(1)
            one = time.perf_counter() - begin
            self.passes[what] = max(1, round(self.seconds / one))
        # The system may have taken memory of a process that waited for its turn: a first pass brings it back,
        # which took half a second with TensorFlow.
        run(1)
        passes = self.passes[what]
        begin = CLOCK()
        run(passes)
        return passes * len(self.images) / (CLOCK() - begin)


def keras_backend() -> str:
    import keras

    return keras.backend.backend()


class Keras(Variant):
    """`fit` and `predict`, with the settings that the user of a package would take."""

    def prepare(self):
        self.ours = self.who.startswith("ours")
        if self.ours:
            import keras_vit  # noqa: F401  # before Keras, as the README says for JAX
        import keras

        dtype = "mixed_bfloat16" if self.work["precision"] == "bfloat16" else "float32"
        self.model = self.our_model(dtype) if self.ours else self.hub_model(dtype)
        # Keras's own compiled step for torch stops at the limit of recompilations, ours is made for it.
        jit_compile = {"tensorflow": True, "jax": "auto", "torch": self.ours}[keras_backend()]
        self.model.compile(
            optimizer=keras.optimizers.AdamW(1e-3),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=jit_compile,
        )

    def our_model(self, dtype):
        from keras_vit import ViT

        work = self.work
        options = dict(head_dim=work["head_dim"], dropout_rate=work["dropout_rate"])
        shape = (work["image_size"], work["image_size"], work["channels"])
        return ViT.from_variant(
            work["variant"], image_shape=shape, num_classes=work["num_classes"], dtype=dtype, **options
        )

    def hub_model(self, dtype):
        import keras_hub

        work = self.work
        backbone = keras_hub.models.ViTBackbone(
            image_shape=(work["image_size"], work["image_size"], work["channels"]),
            patch_size=work["patch_size"],
            num_layers=work["depth"],
            num_heads=work["num_heads"],
            hidden_dim=work["dim"],
            mlp_dim=work["mlp_dim"],
            dropout_rate=work["dropout_rate"],
            dtype=dtype,
        )
        return keras_hub.models.ViTImageClassifier(
            backbone=backbone, num_classes=work["num_classes"], head_dtype="float32"
        )

    def train(self, passes):
        if keras_backend() == "tensorflow":
            steps = passes * len(self.images) // self.work["batch"]
            self.model.fit(self.batches, steps_per_epoch=steps, verbose=0)
        else:
            self.model.fit(self.images, self.labels, self.work["batch"], epochs=passes, verbose=0)

    @cached_property
    def batches(self):
        """Of the images again and again, for TensorFlow.

        Keras makes an iterator of arrays per epoch, and tf.data waits half a second for its tuning thread
        when it drops one, as long as ten steps of the smallest work.
        """
        import tensorflow as tf

        rows = tf.data.Dataset.from_tensor_slices((self.images, self.labels)).shuffle(len(self.images))
        options = tf.data.Options()
        options.autotune.enabled = False
        return rows.batch(self.work["batch"], drop_remainder=True).repeat().with_options(options)

    def infer(self, passes):
        for _ in range(passes):
            self.model.predict(self.images, self.work["batch"], verbose=0)


class Torch(Variant):
    """A loop as the documentation of these packages writes it."""

    def prepare(self):
        import torch

        torch.set_num_threads(self.work["threads"])
        self.torch = torch
        package = self.who.removesuffix(" compiled")
        self.model = getattr(self, "make_" + package.replace("-", "_"))()
        self.run = self.model if package == self.who else torch.compile(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.pixels = torch.from_numpy(self.images).permute(0, 3, 1, 2).contiguous()
        self.targets = torch.from_numpy(self.labels)
        self.cast = torch.autocast("cpu", torch.bfloat16, enabled=self.work["precision"] == "bfloat16")

    def make_vit_pytorch(self):
        from vit_pytorch import ViT

        work = self.work
        return ViT(
            image_size=work["image_size"],
            patch_size=work["patch_size"],
            num_classes=work["num_classes"],
            dim=work["dim"],
            depth=work["depth"],
            heads=work["num_heads"],
            dim_head=work["head_dim"] or work["dim"] // work["num_heads"],
            mlp_dim=work["mlp_dim"],
            channels=work["channels"],
            dropout=work["dropout_rate"],
            emb_dropout=work["dropout_rate"],
        )

    def make_timm(self):
        from timm.models.vision_transformer import VisionTransformer

        work = self.work
        return VisionTransformer(
            img_size=work["image_size"],
            patch_size=work["patch_size"],
            in_chans=work["channels"],
            num_classes=work["num_classes"],
            embed_dim=work["dim"],
            depth=work["depth"],
            num_heads=work["num_heads"],
            mlp_ratio=work["mlp_dim"] / work["dim"],
            proj_drop_rate=work["dropout_rate"],
            pos_drop_rate=work["dropout_rate"],
        )

    def make_transformers(self):
        from transformers import ViTConfig, ViTForImageClassification

        work = self.work
        config = ViTConfig(
            image_size=work["image_size"],
            patch_size=work["patch_size"],
            num_channels=work["channels"],
            num_labels=work["num_classes"],
            hidden_size=work["dim"],
            num_hidden_layers=work["depth"],
            num_attention_heads=work["num_heads"],
            intermediate_size=work["mlp_dim"],
            hidden_dropout_prob=work["dropout_rate"],
        )
        return ViTForImageClassification(config)

    def logits(self, pixels):
        found = self.run(pixels)
        return getattr(found, "logits", found)  # transformers returns more

    def train(self, passes):
        torch, batch = self.torch, self.work["batch"]
        self.model.train()
        for _ in range(passes):
            for rows in torch.randperm(len(self.pixels)).split(batch):
                self.optimizer.zero_grad(set_to_none=True)
                with self.cast:
                    logits = self.logits(self.pixels[rows])
                torch.nn.functional.cross_entropy(logits.float(), self.targets[rows]).backward()
                self.optimizer.step()

    def infer(self, passes):
        self.model.eval()
        with self.torch.inference_mode(), self.cast:
            for _ in range(passes):
                for pixels in self.pixels.split(self.work["batch"]):
                    self.logits(pixels)


def answers(variant: Variant) -> None:
    """A line for each line that comes."""
    for line in sys.stdin:
        print("answer", json.dumps(variant.round(line.strip())), flush=True)


def main() -> None:
    given = json.loads(sys.argv[1])
    who, work, package = given["who"], given["work"], given["package"]
    first = work.get("core", 0)
    os.sched_setaffinity(0, range(first, first + work["threads"]))  # XLA and TensorFlow count these
    if package:
        sys.path.insert(0, package)
    from benchmarks.speed.bounds import KINDS  # they are variants too

    kind = KINDS.get(who) or (Keras if who.startswith(("ours", "keras-hub")) else Torch)
    variant = kind(who, work, given["seconds"])
    print("ready", flush=True)
    answers(variant)


if __name__ == "__main__":
    main()
