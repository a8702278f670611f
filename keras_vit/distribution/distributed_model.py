"""The model class that gives the same results on several devices as on one."""

import keras

from keras_vit.distribution.ambient import current_distribution
from keras_vit.distribution.synchronised import place, watch


class DistributedModel(keras.Model):
    """A `keras.Model` that stays on the devices it was built on.

    These are the devices of `distribute()`, or those that the user has set up with the backend. `fit` takes
    global batches: `batch_size` images for all devices together. `evaluate` and `predict` return the results
    for all images, in every process. On one device its methods are those of `keras.Model`.

    Raises:
        InputError: from `compile` and `fit`, before the first step, for anything that would differ from one
            device.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        watch()
        place(self, current_distribution())

    def get_compile_config(self):
        config = super().get_compile_config()
        if config and self.optimizer is not None:
            # With the scaled loss that Keras may have added. For an .h5 file Keras takes it out.
            config["optimizer"] = keras.saving.serialize_keras_object(self.optimizer)
        return config

    def compile_from_config(self, config):
        arguments = keras.saving.deserialize_keras_object(config)
        self.compile(**arguments, auto_scale_loss=False)  # the optimizer is as it was
        if self.optimizer is not None and self.built:
            with self.distribution.scope():
                self.optimizer.build(self.trainable_variables)  # a file has its state
