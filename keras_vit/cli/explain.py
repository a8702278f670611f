"""`keras-vit explain`"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from keras_vit.errors import InputError
from keras_vit.process.backend import import_quietly
from keras_vit.process.compiled import keep_compilations
from keras_vit.process.exit_codes import FAILED, FINE
from keras_vit.text import say, shown


@dataclass
class Explain:
    """Draw what the model of a run looks at in image files, one PNG per image.

    Each has the image, the attention of each head of a block, attention rollout, and the attention that
    speaks for a class, weighted by its gradient.

    Examples:
      keras-vit explain runs/first strip_17.jpg strip_18.png --out maps
      keras-vit explain runs/first strip_17.jpg --out maps --class scratches --block 2
    """

    run: Positional[Path]
    """a run folder"""
    images: Positional[tuple[Path, ...]]
    """image files"""
    out: Path
    """folder for the pictures, named after the images; none is overwritten"""
    class_name: Annotated[str | None, arg(name="class")] = None
    """the class that is explained; by default the likeliest one of each image"""
    block: int | None = None
    """number of the block whose heads are shown, 0 for block_0; by default the last one, or the attention
    pooling"""

    def __call__(self) -> int:
        if not self.images:
            raise InputError("Give at least one image file after the run folder.")
        keep_compilations()
        import_quietly(find_devices=True)
        from keras_vit.explain.figure import figure_png
        from keras_vit.explain.names import picture_paths
        from keras_vit.explain.write import write_pictures
        from keras_vit.runs.folder import load_run

        run = load_run(self.run)
        paths = picture_paths(self.images, self.out, "--out")
        found = run.explanations(self.images, self.class_name, self.block)
        failed = False
        for item, path in write_pictures(found, paths, figure_png, "--out"):
            say(f"{shown(item.image)}  {item.error or path}")
            failed |= item.error is not None
        return FAILED if failed else FINE
