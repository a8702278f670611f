"""`keras-vit cache`"""

import json
from dataclasses import dataclass

from keras_vit.cache import all_files, cache_folder, clear_cache, largest_bytes
from keras_vit.text import say


@dataclass
class Cache:
    """Show the folder of kept features and compiled programs, or empty it.

    Features of images under published weights, and what TensorFlow, JAX and torch compile, are made once and
    kept here. The environment variable KERAS_VIT_CACHE names another folder, and KERAS_VIT_CACHE_GB its
    largest size.

    Examples:
      keras-vit cache
      keras-vit cache --clear
    """

    clear: bool = False
    """remove everything that is kept"""
    json: bool = False
    """print the figures as JSON"""

    def __call__(self) -> None:
        folder, most = cache_folder(), largest_bytes()
        if self.clear:
            files, size = clear_cache()
        else:
            files, size = all_files(folder)
        if self.json:
            answer = {"folder": str(folder), "files": files, "bytes": size, "largest_bytes": most}
            say(json.dumps({**answer, "cleared": self.clear}))
            return
        verb = "removed" if self.clear else "holds"
        limit = "" if self.clear else f", of {most / 1e9:g} GB at most"
        say(f"{folder} {verb} {files} files, {size / 1e6:.1f} MB{limit}")
