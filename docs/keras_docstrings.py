"""For the documentation site: what Griffe cannot know of our docstrings and dataclasses."""

import re
from typing import Any

import griffe


class KerasDocstrings(griffe.Extension):
    """Shows the example of a docstring as code, and the arguments of a dataclass of `validated`."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:  # Griffe reads `Examples:`; Keras's docstrings and ours say `Example:`
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)

    def on_class_members(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        for decorator in cls.decorators:
            if str(decorator.value) == "validated":
                decorator.value = griffe.ExprName("dataclasses.dataclass")
