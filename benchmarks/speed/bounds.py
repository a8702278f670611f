"""What the machine could do: its matmul peak, and the matrix products of a step without anything between."""

from typing import Any

from benchmarks.speed.child import Variant

PEAK, PRODUCTS = "matmul peak", "products only"


class Bound(Variant):
    """Plain torch on matrices that are there already."""

    def prepare(self):
        import torch

        torch.set_num_threads(self.work["threads"])
        self.torch = torch
        self.dtype = torch.bfloat16 if self.work["precision"] == "bfloat16" else torch.float32

    def matrix(self, *shape):
        return self.torch.rand(shape).to(self.dtype)


class Peak(Bound):
    """Square products; `round` gives GFLOP/s in place of images per second."""

    SIDE = 2048

    def prepare(self):
        super().prepare()
        self.a, self.b = self.matrix(self.SIDE, self.SIDE), self.matrix(self.SIDE, self.SIDE)

    def train(self, passes):
        for _ in range(passes):
            self.a @ self.b

    infer = train

    def round(self, what):
        return super().round(what) / len(self.images) * 2 * self.SIDE**3 / 1e9


class Products(Bound):
    """The products of each layer: forward, then for the gradients of its input and its kernel."""

    def prepare(self):
        super().prepare()
        work: dict[str, Any] = self.work
        batch, dim, heads = work["batch"], work["dim"], work["num_heads"]
        patches = (work["image_size"] // work["patch_size"]) ** 2
        tokens, width = patches + 1, work["head_dim"] or dim // heads
        rows, inner = batch * tokens, heads * width
        dense = [(batch * patches, work["patch_size"] ** 2 * work["channels"], dim)]
        for _ in range(work["depth"]):
            dense += [(rows, dim, 3 * inner), (rows, inner, dim), (rows, dim, work["mlp_dim"])]
            dense += [(rows, work["mlp_dim"], dim)]
        self.dense = [(self.matrix(n, a), self.matrix(a, b), self.matrix(n, b)) for n, a, b in dense]
        q, k = self.matrix(batch * heads, tokens, width), self.matrix(batch * heads, tokens, width)
        scores, out = self.matrix(batch * heads, tokens, tokens), self.matrix(batch * heads, tokens, width)
        self.attention = [(q, k.mT, scores), (scores, k, out)] * work["depth"]

    def step(self, backward: bool) -> None:
        for products in (self.dense, self.attention):
            for x, kernel, y in products:
                x @ kernel
                if backward:
                    y @ kernel.mT
                    x.mT @ y

    def train(self, passes):
        for _ in range(passes * len(self.images) // self.work["batch"]):
            self.step(backward=True)

    def infer(self, passes):
        for _ in range(passes * len(self.images) // self.work["batch"]):
            self.step(backward=False)


KINDS = {PEAK: Peak, PRODUCTS: Products}
