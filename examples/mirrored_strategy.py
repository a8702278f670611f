"""A model of our layers, and a ViT, trained by model.fit under TensorFlow's own MirroredStrategy.

    python examples/mirrored_strategy.py

MirroredStrategy takes all GPUs. Without GPUs, the two lines about logical devices make two devices of the
CPU: this shows that it works, but is not faster.
"""

import keras
import numpy as np
import tensorflow as tf

from keras_vit import EncoderBlock, PatchEmbed, PositionEmbedding, ViT


def stripes(count):
    """Noisy images of 16x16 with stripes, and their classes: 0 for horizontal ones, 1 for vertical ones."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, count)
    rows = np.sin(np.arange(16))[None, :, None, None] * np.ones((count, 1, 16, 1))
    images = np.where(labels[:, None, None, None] == 0, rows, rows.transpose(0, 2, 1, 3))
    return (images + random.normal(0, 0.3, images.shape)).astype("float32"), labels


def model_by_hand():
    return keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            PatchEmbed(patch_size=4, dim=32),
            PositionEmbedding(grid=(4, 4), use_cls=False),
            EncoderBlock(num_heads=4, mlp_dim=64),
            EncoderBlock(num_heads=4, mlp_dim=64),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(2),
        ]
    )


def vit():
    return ViT(image_shape=(16, 16, 1), num_classes=2, patch_size=4, dim=32, depth=2, num_heads=4)


def main():
    if not tf.config.list_physical_devices("GPU"):
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    else:
        strategy = tf.distribute.MirroredStrategy()
    print(f"{strategy.num_replicas_in_sync} devices")

    images, labels = stripes(320)
    for build in (model_by_hand, vit):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = build()
            model.compile(
                optimizer=keras.optimizers.AdamW(3e-3, global_clipnorm=1.0),
                loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
            )
        model.fit(images, labels, batch_size=32, epochs=3, validation_split=0.2, verbose=2)
        _, accuracy = model.evaluate(images[:50], labels[:50], verbose=0)
        print(f"{build.__name__}: accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()
