"""`keras-vit suggest`"""

import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tyro.conf import Positional

from keras_vit.errors import InputError
from keras_vit.process.backend import import_quietly
from keras_vit.process.compiled import keep_compilations
from keras_vit.process.exit_codes import FINE, INCOMPLETE
from keras_vit.text import say


@dataclass
class Suggest:
    """Suggest which images of a folder to label next, with a page where a person labels them.

    They are those that the run is unsure of and that differ from each other and from what it has.

    Examples:
      keras-vit suggest runs/first new_images --count 100 --out to_label
      keras-vit train --data labels.jsonl --out runs/second
    """

    run: Positional[Path]
    """a run folder"""
    folder: Positional[str]
    """a folder of images without labels, nested or not"""
    count: int = 100
    """how many images are suggested"""
    out: Path | None = None
    """the new folder: suggest.csv, and the page index.html; by default suggestions/ and the date"""
    seed: int = 0
    """of the choice"""

    def __call__(self) -> int:
        if self.count < 1:
            raise InputError(f"--count must be 1 or more. Received: {self.count}")
        from keras_vit.report.labelling import PAGE, check_new_folder, new_folder

        named = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        out = self.out or Path("suggestions") / named
        check_new_folder(out)
        keep_compilations()
        import_quietly(find_devices=True)
        from keras_vit.runs.folder import load_run
        from keras_vit.runs.suggest import lines_of, suggest, write_suggestions

        run = load_run(self.run)
        found = suggest(run, self.folder, self.count, self.seed)
        say(*found.notes)
        say(*(f"unreadable: {item.name}: {item.reason}" for item in found.unreadable))
        say(*lines_of(found))
        with new_folder(out) as new:
            write_suggestions(found, run, new, self.folder)
        say(
            f"open {out / PAGE} in a browser, label the images, and train with the labels.jsonl that it saves"
        )
        return INCOMPLETE if found.unreadable else FINE
