"""For the documentation site: docstrings say `Example:`, as Keras's do, where Griffe reads `Examples:`."""

import re
from typing import Any

import griffe


class KerasDocstrings(griffe.Extension):
    """Shows the example of a docstring as code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
