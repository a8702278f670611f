"""Groups of options that are generated from the settings that they set."""

from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

import tyro

from keras_vit.training.options import Option

ALIASES = {"pixel_range": ["--window"]}
"""Other names of options."""


def option_group(name: str, options: Mapping[str, Option]) -> Any:
    """A type that the parser reads into a dict of the options that were given, and of no others.

    Args:
        name: of the type.
        options: by name.
    """
    make: Any = TypedDict
    return make(
        name,
        {
            key: Annotated[
                option.type,
                tyro.conf.arg(
                    help=option.help,
                    help_behavior_hint=f"(default: {option.default})",
                    aliases=ALIASES.get(key),
                ),
            ]
            for key, option in options.items()
        },
        total=False,
    )
