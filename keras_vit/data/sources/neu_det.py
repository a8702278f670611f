"""The NEU surface defect database as a TensorFlow Datasets builder, for images that are on the disk already.

This module needs the extra `tfds`; defining the class registers the name `neu_det` in TFDS. `prepare_neu_det`
replaces the command `tfds build`, which needs apache-beam.
"""

from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from keras_vit.data.class_names import natural_key
from keras_vit.data.image_set import ImageSet
from keras_vit.data.sources.archive import read_zip
from keras_vit.data.sources.folder import read_folder
from keras_vit.data.sources.layout import NEU_CLASSES
from keras_vit.errors import InputError

CITATION = """\
@article{song2013noise,
  title = {A noise robust method based on completed local binary patterns for hot-rolled steel strip
           surface defects},
  author = {Song, Kechen and Yan, Yunhui},
  journal = {Applied Surface Science},
  volume = {285},
  pages = {858--864},
  year = {2013},
  doi = {10.1016/j.apsusc.2013.09.002}
}
"""


class NeuDet(tfds.core.GeneratorBasedBuilder):
    """1,800 gray images, 200x200, of hot-rolled steel strip: 300 of each of six defects.

    One split, `"train"`, ordered by class name, then by the number in the file name, so that
    `stratified_split` draws the same images as from the folder itself.

    The files are JPEG with three equal channels (8-bit BMP in the first publication). Their bytes are kept as
    they are, neither decoded nor encoded again. The shape of the feature is (200, 200, 1), because the files
    hold one channel, and TensorFlow decodes both kinds of files to it.

    Source: K. Song and Y. Yan, Applied Surface Science 285 (2013) 858-864.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 -- as TFDS wants it
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    Get the NEU surface defect database (Northeastern University, China) and put it into the manual folder:
    six folders named crazing, inclusion, patches, pitted_surface, rolled-in_scale and scratches; or all
    files in one folder under their own names (Cr_1.bmp or crazing_1.jpg); or one .zip of either.
    """

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Six surface defects of hot-rolled steel strip, 300 images of 200x200 pixels.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(200, 200, 1)),
                    "label": tfds.features.ClassLabel(names=list(NEU_CLASSES)),
                    "file_name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="http://faculty.neu.edu.cn/yunhyan/NEU_surface_defect_database.html",
            citation=CITATION,
            # In the order of the generator, not of hashed keys: the split depends on the order.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        return {"train": self._generate_examples(_neu_images(Path(dl_manager.manual_dir)))}

    def _generate_examples(self, image_set: ImageSet) -> Iterator[tuple[int, dict]]:
        def order(i: int) -> tuple:
            return image_set.labels[i], natural_key(image_set.names[i].rsplit("/", 1)[-1])

        for key, i in enumerate(sorted(range(len(image_set)), key=order)):
            image = image_set.images[i]
            yield (
                key,
                {
                    "image": image.read_bytes() if isinstance(image, Path) else image,
                    "label": image_set.class_names[image_set.labels[i]],
                    "file_name": image_set.names[i],
                },
            )


def _neu_images(folder: Path) -> ImageSet:
    """The images of the manual folder, or of the only zip in it."""
    zips = [path for path in folder.iterdir() if path.suffix.lower() == ".zip"]
    image_set = read_zip(zips[0]) if len(zips) == 1 else read_folder(folder)
    if image_set.class_names != NEU_CLASSES:
        raise InputError(
            f"{image_set.source} has the classes {', '.join(image_set.class_names)}, not the six of NEU: "
            f"{', '.join(NEU_CLASSES)}. Give the folder of the NEU database."
        )
    return image_set


def prepare_neu_det(manual_dir: str | Path, data_dir: str | Path | None = None) -> Path:
    """Prepares `tfds:neu_det` from images on disk; then `load_image_set("tfds:neu_det")` reads them.

    Args:
        manual_dir: a folder with NEU's class folders, its flat files, or one zip of either.
        data_dir: where TFDS keeps data sets; `None` is the default of TFDS, `~/tensorflow_datasets`. To read
            the data set from another folder, set the environment variable `TFDS_DATA_DIR` to it.

    Returns:
        The folder of the prepared data set.

    Raises:
        InputError: there is no such folder, or it does not hold the six classes of NEU.
    """
    folder = Path(manual_dir).expanduser()
    if not folder.is_dir():
        raise InputError(f"No such folder: {manual_dir}. Give the folder that holds the NEU images.")
    _neu_images(folder)  # raises for a wrong folder before TFDS writes anything
    builder = NeuDet(data_dir=None if data_dir is None else str(data_dir))
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(folder)))
    return Path(builder.data_path)
