"""Files of models that are not a plain ViT: what their tensor names say that they are."""

import re
from collections.abc import Iterable

# The first pattern that a name fits counts.
KINDS = {
    r"\blayers\.\d+\.blocks\.\d+\.(attn|attention)\.": "a Swin Transformer",
    r"\bstages\.\d+\.(blocks|layers)\.\d+\.(conv_dw|dwconv)\.": "a ConvNeXt",
    r"\blayer1\.0\.conv1\.|\bresnet\.|\bembedder\.embedder\.convolution\.": "a ResNet",
    r"\bconv_stem\.weight$": "an EfficientNet or a MobileNet",
    r"\bmlp_tokens\.": "an MLP-Mixer",
    r"\bpatch_embeddings\.weight$": "a DINOv3, whose positions are rotary",
    r"\bconv_proj\.weight$": "a ViT in the names of torchvision, which are not known here",
    r"\bvisual\.(conv1|class_embedding)\b": "a CLIP in the names of OpenAI, which are not known here",
    r"\b(word_embeddings|embed_tokens|token_embedding|wte)\.weight$": "a language model",
    r"\b(down|up)_blocks\.\d": "a diffusion model",
    r"\bstages?\.\d+\.|\btransformers\.\d+\.blocks\.": "a network in stages of different resolution",
    r"\bfeatures\.\w+\.|\bbn\d\.running_mean$": "a convolutional network",
}


def kind_of(names: Iterable[str]) -> str | None:
    """What a file is of, with its article, such as `"a ResNet"`; `None` if its names do not tell.

    Args:
        names: of its tensors.
    """
    listed = list(names)
    for pattern, kind in KINDS.items():
        if any(re.search(pattern, name) for name in listed):
            return kind
    return None
