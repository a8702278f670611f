"""An example of a search space of your own.

keras-vit search --space tuning/my_space.py --data images
"""

from keras_vit.search import Choice, Range, SearchSpace

# Every field of SearchSpace may be a Range, a Choice, or one value, at which it is frozen.
SPACE = SearchSpace(
    model="defect-conv",  # the size whose other arguments all points have
    depth=Range(2, 6, default=4),
    num_heads=Choice((4, 2)),
    dim=Range(32, 96, default=64, step=32),
    patch_size=Choice((8, 4)),
    stem="conv",
    learning_rate=Range(5e-4, 5e-3, default=2e-3, log=True),
    max_parameters=500_000,  # larger models are not tried
)

# (height, width, channels) of what the models get; by default that of the size.
IMAGE_SHAPE = (64, 64, 1)
