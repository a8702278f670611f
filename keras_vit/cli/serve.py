"""`keras-vit serve`"""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from keras_vit.process.backend import import_quietly


@dataclass
class Serve:
    """Answer over HTTP as TensorFlow Serving does, and show a page to try the model in a browser.

    One process, for one machine. Ctrl-C ends it.

    Examples:
      keras-vit serve runs/first
      keras-vit serve models/vit --port 8600
      keras-vit serve runs/folds --fold 2 --name steel
      keras-vit serve runs/first --host 0.0.0.0
    """

    model: Positional[Path]
    """a run folder, or a bundle: models/NAME, or models/NAME/VERSION"""
    port: int = 8501
    """0 takes a free one"""
    host: str = "127.0.0.1"
    """the address that it listens on; by default, only this machine reaches it"""
    name: str | None = None
    """the name under which it is served; by default that of the bundle, and vit for a run"""
    timeout: float = 30.0
    """seconds that a request may take to arrive, and that it waits for its answer"""
    allow_host: tuple[str, ...] = ()
    """further names under which browsers may ask, such as that of a proxy"""
    fold: int | None = None
    """which of the folds to serve, where MODEL is the folder of all"""
    flips_at_test: bool = False
    """average over each image and its three mirror images, which takes four times as long"""
    accept_risk: float | None = None
    """at most this share of the images that are not referred to a person may be labelled wrongly; by default
    as the run was trained"""
    min_recall: tuple[str, ...] | None = None
    """name a class so often that this share of its images is found, CLASS=RECALL, such as scratches=0.98; by
    default as the run was trained"""
    costs: str | None = None
    """name the class with the least expected cost, by the costs in this file; by default as the run was
    trained"""

    def __call__(self) -> None:
        import_quietly(find_devices=True)
        from keras_vit.serving.server.serve import serve

        serve(
            self.model,
            host=self.host,
            port=self.port,
            name=self.name,
            timeout=self.timeout,
            allow_hosts=self.allow_host,
            fold=self.fold,
            flips=self.flips_at_test,
            accept_risk=self.accept_risk,
            min_recall=self.min_recall,
            costs=self.costs,
        )
