"""From images on the disk to batches that `model.fit` takes.

What happens to an image, in order:

1. `sources` lists it: a folder, a zip, an .npz file, TensorFlow Datasets and the drawn defects all become one
   `image_set.ImageSet`. Files are not decoded yet.
2. `split` puts it into the training, the validation or the test part.
3. `reading` reads and decodes it, once: `probe` checks its header first (`declared_pixels` for animations),
   and gives its size, a fingerprint and a thumbnail.
4. `audit` reports on all images: counts, sizes, unreadable files, duplicates (`near_duplicates`), leaks.
5. `preprocess` converts it to gray or RGB and resizes it, the same way for training, prediction and serving.
6. `random_transforms` changes it at random in each epoch, as `augmentation` says; training images only.
7. `preprocess.scale_pixels` scales its pixels to what the model takes, and `pipeline` puts it into a batch.
"""
