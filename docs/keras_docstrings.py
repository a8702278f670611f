"""For the documentation site: what Griffe, which does not run the code, cannot know of it."""

import re
from typing import Any

import griffe


class KerasDocstrings(griffe.Extension):
    """Shows the example of a docstring as code, and the arguments of checked dataclasses and of `ViT`."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:  # Griffe reads `Examples:`; the docstrings of Keras and ours say `Example:`
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)

    def on_class_members(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        for decorator in cls.decorators:
            if str(decorator.value) == "validated":
                decorator.value = griffe.ExprName("dataclasses.dataclass")

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        if pkg.name != "keras_vit":
            return
        vit, config = pkg["model.vit.ViT"], pkg["model.config.ViTConfig"]
        fields = [field for field in config.attributes.values() if "property" not in field.labels]
        lines = [f"    {field.name}: {' '.join(field.docstring.value.split())}." for field in fields]
        pointer = next(line for line in vit.docstring.lines if line.startswith("    image_shape, "))
        vit.docstring.value = vit.docstring.value.replace(pointer, "\n".join(lines))
        either, rest = griffe.ParameterKind.positional_or_keyword, griffe.ParameterKind.var_keyword
        vit["__init__"].parameters = griffe.Parameters(
            *(
                griffe.Parameter(f.name, annotation=f.annotation, default=f.value, kind=either)
                for f in fields
            ),
            griffe.Parameter("name", default="'vit'", kind=either),
            griffe.Parameter("dtype", default="None", kind=either),
            griffe.Parameter("kwargs", kind=rest),
        )
