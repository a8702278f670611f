"""`keras-vit summary`"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from keras_vit.cli.options import option_group
from keras_vit.errors import InputError
from keras_vit.model.config import ViTConfig, default_channels, default_image_size
from keras_vit.process.backend import import_quietly
from keras_vit.text import say
from keras_vit.training.options import options_of

if TYPE_CHECKING:
    from keras_vit.model.summary import LayerTable

    ModelOptions = dict[str, Any]
else:
    ModelOptions = option_group("ModelOptions", options_of(ViTConfig))


@dataclass
class Summary:
    """Show the layers of a model: output shapes, parameters, mult-adds, memory.

    Examples:
      keras-vit summary B/16
      keras-vit summary S/16 --pooling gap --num-registers 4
      keras-vit summary defect/4 --image-shape 28 28 1 --num-classes 6 --batch-size 64
    """

    model: Positional[str]
    """size/patch, such as B/16, or a run folder, or a .keras file"""
    architecture: ModelOptions
    image_shape: tuple[int, int, int] | None = None
    """height, width and channels; by default those that the size is used at"""
    num_classes: int = 1000
    """number of logits"""
    batch_size: int = 1
    """images per batch, for mult-adds and memory"""
    json: bool = False
    """print the table as JSON"""

    def __call__(self) -> None:
        import_quietly(find_devices=True)
        try:
            table = self._table()
        except InputError:
            raise
        except ValueError as error:  # what a layer refuses is here a mistake of the user
            raise InputError(str(error)) from error
        say(json.dumps(table.to_dict()) if self.json else table)

    def _table(self) -> "LayerTable":
        from keras_vit.model.summary import summary
        from keras_vit.model.vit import ViT
        from keras_vit.runs.folder import load_model, load_run

        made: Any = None
        if Path(self.model).is_dir():
            made = load_run(self.model).model
        elif self.model.endswith(".keras"):
            made = load_model(Path(self.model))
        if made is not None:
            if self.architecture:
                raise InputError(f"Only a size can be changed, not {self.model}: leave the options out.")
            return summary(made, self.batch_size)
        size = default_image_size(self.model)
        shape = self.image_shape or (size, size, default_channels(self.model))
        made = ViT.from_variant(
            self.model, image_shape=shape, num_classes=self.num_classes, **self.architecture
        )
        return summary(made, self.batch_size)
