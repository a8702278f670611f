"""The model against one that is written in plain PyTorch."""

import math

import numpy as np
import pytest

from keras_vit import ViT
from tests.helpers.checks import random_input, randomize, to_numpy


@pytest.mark.parametrize(
    ("variant", "shape", "options"),
    [
        ("defect/4", (28, 28, 1), {}),
        # The options of size B, a bias in qkv and a linear head, at a small size.
        ("B/16", (32, 48, 3), dict(dim=48, depth=3, num_heads=4, mlp_dim=96)),
    ],
)
def test_the_same_model_in_pytorch(variant, shape, options):
    torch = pytest.importorskip("torch")
    model = ViT.from_variant(variant, image_shape=shape, num_classes=6, **options)
    randomize(model, scale=0.05)
    x = random_input((8, *shape))
    with torch.no_grad():
        expected = in_pytorch(torch, model)(torch.tensor(x).permute(0, 3, 1, 2)).numpy()
    assert expected.std(axis=0).min() > 0.01
    np.testing.assert_allclose(to_numpy(model(x)), expected, atol=1e-4)


def in_pytorch(torch, model):
    """The Vision Transformer written in plain PyTorch, channels first, with the weights of the model."""
    nn, config = torch.nn, model.get_config()
    dim, heads, patch = config["dim"], config["num_heads"], config["patch_size"]
    channels = config["image_shape"][2]

    def fill(module, weights):
        kernel, *bias = (torch.tensor(weight) for weight in weights)
        with torch.no_grad():
            module.weight.copy_(kernel.T if isinstance(module, nn.Linear) else kernel)
            if bias:
                module.bias.copy_(bias[0])
        return module

    def linear(layer):
        weights = layer.get_weights()
        return fill(nn.Linear(*weights[0].shape, bias=len(weights) == 2), weights)

    def norm(layer):
        return fill(nn.LayerNorm(dim, eps=1e-6), layer.get_weights())

    class Attention(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.qkv, self.projection = linear(layer.qkv), linear(layer.projection)

        def forward(self, x):
            q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
            weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)
            return self.projection((weights @ v).transpose(1, 2).flatten(2))

    class Block(nn.Module):
        def __init__(self, block):
            super().__init__()
            self.attention = nn.Sequential(norm(block.attention_norm), Attention(block.attention))
            mlp = linear(block.mlp.expand), nn.GELU(), linear(block.mlp.contract)
            self.mlp = nn.Sequential(norm(block.mlp_norm), *mlp)

        def forward(self, x):
            x = x + self.attention(x)
            return x + self.mlp(x)

    class Embed(nn.Module):
        def __init__(self):
            super().__init__()
            kernel, bias = model.get_layer("patch_embed").get_weights()
            kernel = kernel.reshape(patch, patch, channels, dim).transpose(3, 2, 0, 1)
            self.patches = fill(nn.Conv2d(channels, dim, patch, stride=patch), [kernel, bias])
            (tokens,) = model.get_layer("add_cls").get_weights()
            (table,) = model.get_layer("position_embedding").get_weights()
            self.token, self.table = torch.tensor(tokens), torch.tensor(table)

        def forward(self, images):
            patches = self.patches(images).flatten(2).transpose(1, 2)
            return torch.cat([self.token.expand(len(images), -1, -1), patches], dim=1) + self.table

    class Token(nn.Module):
        def forward(self, x):
            return x[:, 0]

    blocks = [Block(model.get_layer(f"block_{i}")) for i in range(config["depth"])]
    head = [linear(model.get_layer("head"))]
    if config["head_hidden_dim"]:
        head = [linear(model.get_layer("head_hidden")), nn.GELU(), *head]
    return nn.Sequential(Embed(), *blocks, norm(model.get_layer("norm")), Token(), *head)
