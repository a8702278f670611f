"""What tensors cannot tell: asked of the user's arguments, the config, the table, and last of the shapes."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_vit.errors import InputError

ARGUMENT, CONFIG, TABLE, SHAPES = "argument", "config", "table of published names", "tensor names and shapes"


class NotTold(InputError):
    """Weights whose file does not tell what the arguments would.

    Args:
        message: one sentence.
        names: of the arguments.
    """

    def __init__(self, message: str, names: Sequence[str]):
        super().__init__(message)
        self.names = tuple(names)


class Told:
    """Values by argument name from several sources, and who told each that was asked for.

    Args:
        arguments: of the user; these win.
        config: of the file, by the names of `ViTConfig`, and `mean`, `std`, `interpolation`, `image_size`.
        table: the row of the published name.
        what: the file, for messages.
    """

    def __init__(
        self,
        arguments: Mapping[str, Any],
        config: Mapping[str, Any],
        table: Mapping[str, Any],
        what: str,
    ):
        self.sources = ((ARGUMENT, arguments), (CONFIG, config), (TABLE, table))
        self.what = what
        self.by: dict[str, str] = {}
        self.lacking: list[str] = []

    def get(self, name: str, shapes: Any = None) -> Any:
        """The value of an argument, or `None`, after which `require` raises.

        Args:
            name: of the argument.
            shapes: what the tensors' names and shapes say, used where nobody else does; `None` for nothing.
        """
        for who, values in self.sources:
            if values.get(name) is not None:
                self.by[name] = who
                return values[name]
        if shapes is None:
            self.lacking.append(name)
        else:
            self.by[name] = SHAPES
        return shapes

    def require(self) -> None:
        """Raises NotTold with every argument that nobody told."""
        if self.lacking:
            raise NotTold(
                f"{self.what} does not tell {_listed(self.lacking)}: give "
                f"{'it' if len(self.lacking) == 1 else 'them'} as arguments (on the command line "
                f"{_listed([option(name) for name in self.lacking])}), or put the config.json of the model "
                "beside the file.",
                self.lacking,
            )


def option(name: str) -> str:
    """The command's option of an argument."""
    return "--" + name.replace("_", "-")


def _listed(names: Sequence[str]) -> str:
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), names[-1]])
