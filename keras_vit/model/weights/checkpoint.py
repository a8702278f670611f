"""What a file of published weights holds, before it is known whose names it has."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Origin:
    """Where weights come from: what config.json and the model card of a run say of them.

    Args:
        source: as the user gave it, such as `"timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"` or a path.
        files: the files of weights that were read.
        sha256: of the bytes of these files, one after the other; hexadecimal.
        revision: commit of a repository of the Hugging Face Hub; `None` for local files.
        licence: as the model card, the config, the file or the table of published names says; `None` if
            none of them does.
    """

    source: str
    files: tuple[Path, ...]
    sha256: str
    revision: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file by their names in it, and what stands beside them.

    Args:
        tensors: name -> array, float32 where the file has floating point, without the prefixes of wrappers
            (`module.`, `_orig_mod.`, `backbone.`). Names of an HDF5 file are paths, such as
            `"layers/vit_encoder/ln/vars/0"`; those of a `.keras` file are the same, and those of KerasHub's
            `task.weights.h5` begin with `"task/"`.
        origin: of the file.
        config: of the model, as it stands in `config.json` beside the file or in a `.keras` file; `None` if
            there is none. Other files of its folder are under keys of their own: `"preprocessor"`
            (`preprocessor_config.json` of Hugging Face or `preprocessor.json` of KerasHub), `"task"` and
            `"image_converter"` (of KerasHub), `"run"` (`config.json` of a run folder of keras_vit).
        name: the published name, such as `"vit_tiny_patch16_224.augreg_in21k_ft_in1k"` or
            `"facebook/dinov2-small"`; of a lone file its name without suffix, which is a published one
            or not; `None` if the source does not say.
        notes: one line for each thing that was dropped or unwrapped to get here.
    """

    tensors: Mapping[str, np.ndarray]
    origin: Origin
    config: Mapping[str, Any] | None = None
    name: str | None = None
    notes: tuple[str, ...] = field(default=())
