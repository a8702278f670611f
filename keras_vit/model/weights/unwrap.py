"""The names of a ViT's tensors without what other modules of torch put before them."""

import re
from collections.abc import Mapping

import numpy as np

from keras_vit.errors import InputError
from keras_vit.model.weights.rules import some

INNER = re.compile(r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing put anywhere in a name."""

FIRST = re.compile(
    r"(?P<prefix>(?:[^.]+\.)*?)"
    r"(?:"
    r"(?:(?:vit|deit|dinov2\w*|\w*vision_model)\.)?embeddings\.(?:patch_embeddings?|cls_token|class_embedding)\b"
    r"|patch_embed\.|to_patch_embedding\.|patch_to_embedding\.|conv_proj\."
    r")"
)
"""Where each library embeds patches, which every ViT does once. What stands before is of a module around it:
`module.` (DataParallel), `model.` (Lightning), `backbone.`, `encoder.`, and so on."""

AVERAGED = ("ema", "teacher")


def unwrapped(tensors: Mapping[str, np.ndarray], what: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The tensors without the prefixes of the modules around a ViT.

    A tensor outside of the ViT keeps its name. Of two ViTs, as student and teacher, the moving average is
    taken.

    Args:
        tensors: by name.
        what: the file, for messages.

    Returns:
        The tensors by their new names, and one line for each thing that was done.

    Raises:
        InputError: there are several ViTs, none of which is a moving average of the others.
    """
    notes = []
    inner = {INNER.sub("", name): tensor for name, tensor in tensors.items()}
    if len(inner) < len(tensors):
        raise InputError(
            f"{what} has the same tensor with and without `_orig_mod.`: save the state_dict() of one model."
        )
    if inner.keys() != tensors.keys():
        notes.append("the parts that torch.compile or FSDP put into names were removed (such as _orig_mod.)")
    prefix = _prefix(inner, what)
    if not prefix:
        return inner, tuple(notes)
    kept = {name.removeprefix(prefix): inner[name] for name in inner if name.startswith(prefix)}
    outside = [name for name in inner if not name.startswith(prefix)]
    notes.append(f"the prefix {prefix} was removed from {len(kept)} names")
    if outside:
        notes.append(f"{len(outside)} tensors are outside of {prefix}: {some(outside)}")
    same = [name for name in outside if name in kept]
    if same:
        notes.append(f"of these, {some(same)} have names that {prefix} has too, and were left out")
    return kept | {name: inner[name] for name in outside if name not in kept}, tuple(notes)


def _prefix(names: Mapping[str, object], what: str) -> str:
    """What stands before the names of the one ViT; "" if nothing does, or if there is no ViT."""
    found = sorted(
        {match["prefix"] for name in names if (match := FIRST.match(name))},
        key=lambda prefix: (len(prefix), prefix),
    )
    if len(found) > 1:
        averaged = [prefix for prefix in found if any(word in prefix.lower() for word in AVERAGED)]
        if len(averaged) != 1:
            models = ", ".join(prefix or "one without a prefix" for prefix in found)
            raise InputError(f"{what} holds several models ({models}): save the state_dict() of one of them.")
        found = averaged
    return found[0] if found else ""
