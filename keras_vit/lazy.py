"""Names that are imported when they are first used."""

import sys
from collections.abc import Mapping
from importlib import import_module


def lazy_names(package: str, homes: Mapping[str, str]):
    """`__getattr__` and `__dir__` of a package (PEP 562) whose names live in its modules.

    Args:
        package: its `__name__`.
        homes: public name -> the module below the package that has it.

    Returns:
        The two functions.
    """

    def get(name):
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: list(sys.modules[package].__all__)
