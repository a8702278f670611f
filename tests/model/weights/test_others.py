import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_vit.errors import InputError
from keras_vit.model.weights.read import read_weights
from tests.helpers.published import FIXTURES

pytestmark = pytest.mark.same_on_every_backend

MODELS = json.loads((FIXTURES / "others.json").read_text())

NAMED = {
    "timm swin_tiny_patch4_window7_224": "a Swin Transformer",
    "timm swinv2_tiny_window8_256": "a Swin Transformer",
    "timm convnext_atto": "a ConvNeXt",
    "timm resnet18": "a ResNet",
    "timm efficientnet_b0": "an EfficientNet",
    "timm mobilenetv3_small_050": "a MobileNet",
    "timm mixer_s16_224": "an MLP-Mixer",
    "timm cait_xxs24_224": "class attention (CaiT)",
    "timm xcit_nano_12_p16_224": "several convolutions before the patches",
    "timm beit_base_patch16_224": "relative positions",
    "timm eva02_tiny_patch14_224": "biases of queries and values alone",
    "timm vit_small_patch16_dinov3": "no table of positions",
    "timm vit_relpos_small_patch16_224": "relative positions",
    "timm vit_tiny_r_s16_p8_224": "a convolutional network before the patches",
    "timm maxvit_nano_rw_256": "stages",
    "timm pit_ti_224": "stages",
    "timm vit_base_patch16_xp_224": "attention and MLP in parallel",
    "timm vit_base_patch16_18x2_224": "attention and MLP in parallel",
    "timm aimv2_large_patch14_224": "a normalisation of the embedded patches alone",
    "timm beit3_base_patch16_224": "layer normalisations inside of the branches",
    "timm pvt_v2_b0": "stages",
    "timm samvit_base_patch16": "relative positions",
    "timm vgg11": "a convolutional network",
    "transformers SwinModel": "windows of attention (Swin)",
    "transformers ConvNextModel": "a ConvNeXt",
    "transformers ResNetModel": "a ResNet",
    "transformers BeitModel": "as in BEiT and Data2Vec",
    "transformers BertModel": "a language model",
    "transformers LlamaModel": "a language model",
    "transformers DINOv3ViTModel": "a DINOv3",
    "transformers YolosModel": "detection tokens (YOLOS)",
    "transformers Data2VecVisionModel": "as in BEiT and Data2Vec",
    "torchvision vit_b_16": "a ViT in the names of torchvision",
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_not_a_plain_vit_is_refused_by_name(name, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({key: np.zeros(shape, "float16") for key, shape in MODELS[name].items()}, file)

    with pytest.raises(InputError) as error:
        read_weights(file)

    message = str(error.value)
    assert NAMED[name] in message
    assert str(file) in message
    assert "\n" not in message
