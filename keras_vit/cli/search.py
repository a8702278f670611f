"""`keras-vit search`"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_vit.cli.options import option_group
from keras_vit.process.children import stop_on_signals
from keras_vit.search.config import SearchConfig, options

if TYPE_CHECKING:
    SearchOptions = dict[str, Any]
else:
    SearchOptions = option_group("SearchOptions", options())


@dataclass
class Search:
    """Search sizes and training of a ViT, or how published weights are fine-tuned, with Hyperband.

    The same command continues a search that was cut off. At the end the best point is trained on train and
    validation images, evaluated once on the test images, and described in a report.

    Examples:
      keras-vit search
      keras-vit search --space defect28 --data images --max-epochs 27 --out searches/steel
      keras-vit search --data images --freeze depth=6 stem=conv --max-minutes 480 --workers 4
      keras-vit search --space my_space.py --data images
      keras-vit search --init vit.safetensors --recipe lora --data images
    """

    search: SearchOptions

    @property
    def config(self) -> SearchConfig:
        """The settings of the search."""
        return SearchConfig(**self.search)

    def __call__(self) -> None:
        config = self.config
        stop_on_signals()
        from keras_vit.search.run import search

        try:
            search(config)
        except KeyboardInterrupt as stop:
            stop.add_note("The same command continues the search.")
            raise
