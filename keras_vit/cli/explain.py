"""`keras-vit explain`"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from keras_vit.errors import InputError
from keras_vit.explain.names import check_new
from keras_vit.files import make_folder, whole_file, write_json
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
      keras-vit explain runs/first --trust --out trust
    """

    run: Positional[Path]
    """a run folder"""
    images: Positional[tuple[Path, ...]]
    """image files; none with --trust"""
    out: Path
    """folder for the pictures, named after the images; none is overwritten"""
    class_name: Annotated[str | None, arg(name="class")] = None
    """the class that is explained; by default the likeliest one of each image"""
    block: int | None = None
    """number of the block whose heads are shown, 0 for block_0; by default the last one, or the attention
    pooling"""

    removal: bool = False
    """also search which patches, replaced by the training mean, take the class away soonest: seconds per
    image for a small model, minutes for a large one"""
    trust: bool = False
    """measure on test images how far the maps can be believed, into trust.json and trust.png; this takes
    minutes for a large model"""

    def __call__(self) -> int:
        if self.trust:
            return self._trust()
        if not self.images:
            raise InputError("Give at least one image file after the run folder, or --trust.")
        keep_compilations()
        import_quietly(find_devices=True)
        from keras_vit.explain.figure import figure_png
        from keras_vit.explain.names import picture_paths
        from keras_vit.explain.write import write_pictures
        from keras_vit.runs.folder import load_run
        from keras_vit.runs.trust import removal_search

        run = load_run(self.run)
        paths = picture_paths(self.images, self.out, "--out")
        search = removal_search(run) if self.removal else None
        found = run.explanations(self.images, self.class_name, self.block, search)
        failed = False
        for item, path in write_pictures(found, paths, figure_png, "--out"):
            say(f"{shown(item.image)}  {item.error or path}")
            failed |= item.error is not None
        return FAILED if failed else FINE

    def _trust(self) -> int:
        if self.images or self.class_name is not None or self.block is not None or self.removal:
            raise InputError("--trust takes the run's own test images: omit the other options.")
        paths = [self.out / name for name in ("trust.json", "trust.png")]
        check_new(paths, "--out")
        keep_compilations()
        import_quietly(find_devices=True)
        from keras_vit.report.explain_plots import trust_png
        from keras_vit.runs.folder import load_run
        from keras_vit.runs.trust import trust_of_run

        found = trust_of_run(load_run(self.run))
        make_folder(self.out)
        write_json(paths[0], found)
        with whole_file(paths[1], "wb") as file:
            file.write(trust_png(found))
        for name in ("deletion", "insertion"):
            area, by_chance = found[name]["area"], found[name]["area_by_chance"]
            say(f"{name}: area {area:.3f}, in random order {by_chance:.3f}, ratio {area / by_chance:.2f}")
        part, value = found["randomised"][-1]
        say(f"weights shuffled down to {part}: rank correlation with the maps of the model {value:.2f}")
        say(f"{found['images']} of {found['test_images']} test images; {paths[0]}, {paths[1]}")
        return FINE
