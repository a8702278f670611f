"""One pass over images that decodes each of them once, for every later step.

The audit, the training, the out-of-distribution detector and the report all need the pixels of the images.
This pass gives them what they need, as long as that fits in memory. Beyond the limits, a later step decodes
the files again.
"""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from keras_vit.data.image_set import Image, ImageSet
from keras_vit.data.near_duplicates import LIMIT
from keras_vit.data.pipeline import fits_in_memory
from keras_vit.data.preprocess import Preprocessing
from keras_vit.data.probe import ImageInfo, UnreadableImage, probe_image, quiet_headers, to_uint8
from keras_vit.data.source import is_prepared, preparer

if TYPE_CHECKING:
    from keras_vit.data.decode import Decoding

# Decoded images that together have more bytes are not kept as they came; a report decodes its few again.
ORIGINAL_BYTES = 2**30

SHOWN_FROM = 2_000  # images, about 5 seconds: with so many, a terminal shows how far the reading is
CHUNK = 1_024  # images that wait for a thread at once: a future of each of a million would take a gigabyte


@dataclass(frozen=True)
class ReadImages:
    """What `read_images` found. Each list has one item per image, in their order.

    Args:
        images: as given.
        infos: kind, size, fingerprint and thumbnail; `None` for an image that cannot be read.
        reasons: why an image cannot be read, as half a sentence; `None` for an image that can be.
        prepared: float32 `image_shape` in 0..255, what `pipeline.read_pixels` gives; zeros for an image that
            cannot be read. `None` instead of the list if no preprocessing was given or they do not fit in
            `pipeline.CACHE_BYTES`.
        originals: the decoded pixels, uint8 (height, width, channels). `None` instead of the list if they
            were not asked for or do not fit in `ORIGINAL_BYTES`.
    """

    images: Sequence[Image]
    infos: list[ImageInfo | None]
    reasons: list[str | None]
    prepared: list[np.ndarray] | None = None
    originals: list[np.ndarray | None] | None = None

    @property
    def readable(self) -> list[int]:
        """The positions of the images that can be read."""
        return [i for i, reason in enumerate(self.reasons) if reason is None]

    @property
    def inputs(self) -> Sequence[Image]:
        """What to feed to `pipeline.pixel_dataset`: the prepared pixels, or else the images to read again."""
        return self.images if self.prepared is None else self.prepared

    def take(self, indices: Sequence[int]) -> "ReadImages":
        """The same of these positions, in this order; nothing is copied."""

        def pick(values):
            return None if values is None else [values[i] for i in indices]

        return ReadImages(*map(pick, (self.images, self.infos, self.reasons, self.prepared, self.originals)))

    def put_into(self, image_set: ImageSet) -> ImageSet:
        """The image set that these are the images of, with the pixels that were kept.

        Returns:
            The same names and labels; `images` are the prepared pixels and `originals` the decoded ones, as
            far as they were kept.
        """
        if self.prepared is None:
            return image_set
        originals = self.images
        if self.originals is not None:
            # An unreadable image has no pixels: its file is named, as an ImageSet must hold something.
            originals = [
                image if pixels is None else pixels
                for image, pixels in zip(self.images, self.originals, strict=True)
            ]
        return replace(image_set, images=self.prepared, originals=originals)


def read_images(
    images: Sequence[Image],
    preprocessing: Preprocessing | None = None,
    keep_originals: bool = False,
    decoding: "Decoding | None" = None,
    fingerprints: bool = True,
) -> ReadImages:
    """Reads and decodes each image once.

    The memory that an image takes is what is returned of it: some hundred bytes beside the pixels that are
    kept. On a terminal, a bar on the error output shows the progress with `SHOWN_FROM` images or more.

    Args:
        images: files, encoded bytes or pixels.
        preprocessing: of the model that gets the images; `None` prepares none.
        keep_originals: whether the decoded pixels are kept too.
        decoding: how files become pixels, where that is not `preprocessing.decoding`.
        fingerprints: whether the infos have digests, and thumbnails if there are at most
            `near_duplicates.LIMIT` images. With more, near duplicates are not searched for, and the
            thumbnails of a million images would take 4 GB.

    Returns:
        A `ReadImages`. Images that cannot be read are in it, not raised.
    """
    from keras_vit.distribution.accelerators import keep_tensorflow_off_gpus  # Keras, which not all need

    keep_tensorflow_off_gpus()
    prepared = None
    decoding = decoding or (None if preprocessing is None else preprocessing.decoding)
    if preprocessing is not None and fits_in_memory(len(images), preprocessing):
        prepared = np.zeros((len(images), *preprocessing.image_shape), np.float32)
    originals = _Originals(len(images) if keep_originals else None)
    thumbnails = fingerprints and len(images) <= LIMIT

    def read(i: int) -> tuple[ImageInfo | None, str | None]:
        try:
            info, pixels = probe_image(images[i], decoding, fingerprints, thumbnails)
        except UnreadableImage as reason:
            return None, str(reason)
        originals.keep(i, pixels if isinstance(images[i], np.ndarray) else to_uint8(pixels))
        if prepared is not None:
            prepared[i] = _prepare(pixels, preprocessing)
        return info, None

    with quiet_headers():
        # Starting threads takes longer than reading one image.
        found = [read(0)] if len(images) == 1 else _read_all(read, len(images))
    return ReadImages(
        images,
        [info for info, _ in found],
        [reason for _, reason in found],
        None if prepared is None else list(prepared),
        originals.kept,
    )


def _read_all(read, count):
    """`read` of each position, in threads."""
    from tqdm import tqdm

    # `None`: not where the error output is a file.
    disable = None if count >= SHOWN_FROM else True
    found: list[tuple[ImageInfo | None, str | None]] = []
    with (
        # Four at most: each may hold one image of 100 million pixels.
        ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool,
        tqdm(total=count, desc="reading images", unit=" images", leave=False, disable=disable) as bar,
    ):
        for start in range(0, count, CHUNK):
            part = range(start, min(start + CHUNK, count))
            found += pool.map(read, part)
            bar.update(len(part))
    return found


class _Originals:
    """Decoded pixels that several threads put in, until they are too many."""

    def __init__(self, count):
        self.kept: list[np.ndarray | None] | None = None if count is None else [None] * count
        self.free = ORIGINAL_BYTES
        self.lock = threading.Lock()

    def keep(self, i, pixels):
        with self.lock:
            self.free -= pixels.nbytes
            if self.free < 0:
                self.kept = None
            elif self.kept is not None:
                self.kept[i] = pixels


def _prepare(pixels, preprocessing):
    import tensorflow as tf

    if is_prepared(pixels, preprocessing):
        return pixels
    with tf.device("/CPU:0"):
        return preparer(preprocessing, pixels.dtype)(tf.constant(pixels)).numpy()
