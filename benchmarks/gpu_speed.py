"""Training speed of large models on one GPU, beside timm with torch.compile, as a share of the matmul peak.

    KERAS_BACKEND=torch python -m benchmarks.gpu_speed torch [--compiled]
    KERAS_BACKEND=jax python -m benchmarks.gpu_speed jax [--only B/16]
    python -m benchmarks.gpu_speed timm

Each line of the answer is JSON: images per second of whole training steps in bfloat16 (median of three times
ten steps, after a warm-up), the seconds until the first step was done, and peak memory where torch knows it.
"""

import argparse
import json
import time

import numpy as np

from keras_vit.model.config import ViTConfig, variant_arguments
from keras_vit.model.cost import count_mult_adds

STUDY = "defect/4, head width 16"
CASES = (
    ("defect/4", 64, False),
    (STUDY, 64, False),
    ("B/16", 64, False),
    ("B/16", 256, False),
    ("L/16", 64, False),
    ("L/16", 256, False),
    ("L/16", 256, True),
)


def measure(step, wait, batch: int) -> dict:
    begin = time.perf_counter()
    step()
    wait()
    first = time.perf_counter() - begin
    for _ in range(3):
        step()
    wait()
    rates = []
    for _ in range(3):
        begin = time.perf_counter()
        for _ in range(10):
            step()
        wait()
        rates.append(10 * batch / (time.perf_counter() - begin))
    return {"images_per_second": round(float(np.median(rates)), 1), "first_step_seconds": round(first, 1)}


def shape_of(variant: str) -> tuple[int, int, int]:
    return (28, 28, 1) if variant.startswith("defect") else (224, 224, 3)


def arguments_of(variant: str) -> dict:
    if variant == STUDY:
        return {**variant_arguments("defect/4"), "head_dim": 16, "dropout_rate": 0.0}
    return variant_arguments(variant)


def flops(variant: str) -> float:
    """Of one image and training step: two per mult-add, forward and twice as many backward."""
    config = ViTConfig(image_shape=shape_of(variant), num_classes=1000, **arguments_of(variant))
    return 6.0 * count_mult_adds(config)


def ours(variant: str, batch: int, remat: bool, compiled: bool) -> dict:
    import keras

    from keras_vit.model.vit import ViT
    from keras_vit.training.optimizer import compile_model
    from keras_vit.training.recipe import Recipe

    model = ViT(shape_of(variant), 1000, dtype="mixed_bfloat16", remat=remat, **arguments_of(variant))
    compile_model(model, Recipe(precision="mixed_bfloat16", epochs=100, xla=compiled or None), 100)
    x = np.random.default_rng(0).normal(size=(batch, *shape_of(variant))).astype("float32")
    y = np.eye(1000, dtype="float32")[np.arange(batch) % 1000]
    x, y = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)

    def step():
        model.train_on_batch(x, y)  # it returns numbers, so it waits for the device

    return measure(step, lambda: None, batch)


def theirs(variant: str, batch: int) -> dict:
    import timm
    import torch

    if variant == STUDY:
        sizes = dict(img_size=28, patch_size=4, in_chans=1, num_classes=1000)
        model = timm.models.VisionTransformer(**sizes, embed_dim=64, depth=6, num_heads=4, mlp_ratio=2)
    else:
        model = timm.create_model({"B/16": "vit_base_patch16_224", "L/16": "vit_large_patch16_224"}[variant])
    model = model.cuda().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, fused=True)
    compiled = torch.compile(model)
    height, width, channels = shape_of(variant)
    x = torch.randn(batch, channels, height, width, device="cuda")
    y = torch.arange(batch, device="cuda") % 1000

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(compiled(x), y, label_smoothing=0.1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return measure(step, torch.cuda.synchronize, batch)


def peak() -> float:
    """Products per second of bfloat16 matrices of 8192, in TFLOP/s."""
    import torch

    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(5):
        a @ a
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(20):
        a @ a
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - begin) / 1e12


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("who", choices=("torch", "jax", "timm", "peak"))
    parser.add_argument("--compiled", action="store_true", help="the compiled training step of torch")
    parser.add_argument("--only", default="", help="part of the name of a model")
    parser.add_argument("--peak", type=float, default=0.0, help="TFLOP/s, for the share")
    options = parser.parse_args()
    if options.who == "peak":
        print(json.dumps({"bf16_matmul_tflops": round(peak(), 1)}), flush=True)
        return
    for variant, batch, remat in CASES:
        if options.only not in variant or (options.who == "timm" and (remat or variant == "defect/4")):
            continue
        row = dict(who=options.who, model=variant, batch=batch, remat=remat, compiled=options.compiled)
        try:
            row |= (
                theirs(variant, batch)
                if options.who == "timm"
                else ours(variant, batch, remat, options.compiled)
            )
            if options.peak:
                row["share_of_peak"] = round(
                    row["images_per_second"] * flops(variant) / options.peak / 1e12, 3
                )
            if options.who != "jax":
                import torch

                row["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
                torch.cuda.reset_peak_memory_stats()
                torch.cuda.empty_cache()
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"[:300]
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
