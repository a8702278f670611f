"""`keras-vit serve`"""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from keras_vit.cli.decision import Decision
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
    decision: Decision = field(default_factory=Decision)

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
            accept_risk=self.decision.accept_risk,
            min_recall=self.decision.min_recall,
            costs=self.decision.costs,
        )
