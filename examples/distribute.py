"""Trains one model on two devices together, two epochs on the drawn steel defects, and evaluates it.

    python examples/distribute.py
    KERAS_BACKEND=jax python examples/distribute.py
    KERAS_BACKEND=torch torchrun --standalone --nproc-per-node 2 examples/distribute.py

Change: `devices`, None for all GPUs. Without GPUs, CPU cores replace them: this shows that it works, but
is not faster.
"""

import keras

import keras_vit


def main():
    keras.utils.set_random_seed(0)
    # This comes before anything else uses the backend, because the first use fixes the number of devices.
    with keras_vit.distribute("data", devices=2) as distribution:
        data = keras_vit.load_data(batch_size=64)  # 64 images per step, 32 on each device
        model = keras_vit.ViT.from_variant(
            "defect-conv/4", image_shape=(28, 28, 1), num_classes=data.num_classes
        )
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model.compile(optimizer="adamw", loss=loss, metrics=["accuracy"])

    # Only one of several processes prints.
    verbose = 2 if distribution.is_chief else 0
    # tf.data shuffles again in each epoch, so Keras need not.
    epoch = dict(steps_per_epoch=data.steps_per_epoch, shuffle=False)
    model.fit(data.train, validation_data=data.validation, epochs=2, verbose=verbose, **epoch)
    found = model.evaluate(data.test, verbose=0, return_dict=True)
    if distribution.is_chief:
        print(f"{distribution}: test accuracy {found['accuracy']:.1%}")


if __name__ == "__main__":
    main()
