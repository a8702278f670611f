"""How data-parallel training of a ViT would scale: a model made of arithmetic, nothing is measured here.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --model B/16 --devices 1 8 64 --batch 256 --overlap 0.9
    python benchmarks/scaling.py --json

Every device keeps the whole model and the same batch (weak scaling); after the backward pass the gradients
are summed over all n devices. With b images per device, P parameters, e bytes per gradient element:

    flops    = 3 * 2 * mult_adds * b              forward once, backward twice as much, 2 FLOPs per mult-add
    compute  = flops / (peak * utilization)
    V        = P * e                              bytes of gradients

The sum is hierarchical. With g devices in a node, m = n / g nodes, bandwidths B and hop latencies L:

    inside   reduce-scatter   (g-1)/g * V / B_node   +   (g-1) * L_node      each device ends with V/g summed
    across   ring all-reduce  2 (m-1)/m * V/g / B_net + 2 (m-1) * L_net      each device with its own card
    inside   all-gather       (g-1)/g * V / B_node   +   (g-1) * L_node

Together a device sends 2 (n-1)/n * V bytes, as in one flat ring, but only 2 (m-1)/m * V/g of them leave the
node. A share of the communication may run during the backward pass (2/3 of the compute), and at most as long:

    step       = compute + communication - min(overlap * communication, 2/3 * compute)
    efficiency = images/s on n devices / (n * images/s on one) = step of one device / step

Left out, so the truth is slower: reading images, the optimizer's update, waiting for the slowest device,
gradients that travel in many small parts. Left out, so it may be faster: sums along trees or in the switch.
"""

import dataclasses
import json
import sys
from dataclasses import dataclass, field
from typing import Annotated

import tyro
from pydantic import Field

from keras_vit.errors import InputError
from keras_vit.validation import Count, validated

Positive = Annotated[float, Field(gt=0)]

FORWARD_AND_BACKWARD = 3  # in units of a forward pass: the backward pass makes two products for each one
BACKWARD_SHARE = 2 / 3  # of the compute
FLOPS_A_MULT_ADD = 2


@validated
class Assumptions:
    """The machine and the step. The defaults are nodes of eight H100 SXM.

    Raises:
        InputError: a value is out of its range.
    """

    peak_tflops: Positive = 989.4
    """TFLOP/s of a device; H100 SXM, bfloat16, dense (NVIDIA, H100 architecture white paper)"""
    utilization: Annotated[float, Field(gt=0, le=1)] = 0.4
    """share of the peak that training reaches; an assumption: replace it by what you measure on one device"""
    batch: Count = 64
    """images per device and step; on 64 devices the 4,096 that ViT was trained with (arXiv 2010.11929)"""
    devices_a_node: Count = 8
    """devices that the fast link joins; as in DGX and HGX H100"""
    node_bandwidth: Positive = 450.0
    """GB/s that a device sends inside a node; NVLink 4 is 900 GB/s in both directions together (same white
    paper)"""
    net_bandwidth: Positive = 50.0
    """GB/s that a device sends to other nodes; one 400 Gbit/s card per GPU (user guide of DGX H100)"""
    link_utilization: Annotated[float, Field(gt=0, le=1)] = 0.8
    """share of both bandwidths that is reached; an assumption: 380 of 450 GB/s were measured between two
    H100 (https://github.com/NVIDIA/nccl/issues/1264)"""
    node_latency: Annotated[float, Field(ge=0)] = 3.4
    """microseconds per hop inside a node; NCCL's own estimate for a ring on NVLink (src/graph/tuning.cc,
    hwLat, protocol Simple)"""
    net_latency: Annotated[float, Field(ge=0)] = 9.6
    """microseconds per hop between nodes; the same table's estimate for a network"""
    gradient_bytes: Positive = 4
    """bytes per gradient element; Keras keeps variables, so gradients, in float32 under mixed_bfloat16"""
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.0
    """share of the communication that runs during the backward pass; 0 is the worst case"""


@dataclass(frozen=True)
class Figures:
    """One training step on n devices. Times are seconds; bytes and FLOPs are those of one device."""

    devices: int
    bytes_sent: float
    bytes_sent_between_nodes: float
    flops: float
    compute: float
    communication: float
    step: float
    images_per_second: float
    efficiency: float


@dataclass(frozen=True)
class Traffic:
    """What the all-reduce costs one device: bytes it sends inside the node and out of it, and seconds."""

    inside: float
    across: float
    seconds: float


def all_reduce(gradients: float, devices: int, given: Assumptions) -> Traffic:
    """The hierarchical all-reduce; the formulas are at the top of this file.

    Args:
        gradients: bytes of all gradients.
        devices: all devices; above one node, whole nodes of them.
        given: the links.

    Raises:
        InputError: no devices, or a node that is only partly filled.
    """
    if devices < 1:
        raise InputError(f"devices must be 1 or more. Received: devices={devices}")
    group = min(devices, given.devices_a_node)
    nodes, rest = divmod(devices, group)
    if rest:
        raise InputError(f"devices must fill whole nodes of {group}. Received: devices={devices}")
    inside = 2 * (group - 1) / group * gradients
    across = 2 * (nodes - 1) / nodes * gradients / group
    transfer = (inside / given.node_bandwidth + across / given.net_bandwidth) / (given.link_utilization * 1e9)
    hops = (2 * (group - 1) * given.node_latency + 2 * (nodes - 1) * given.net_latency) * 1e-6
    return Traffic(inside, across, transfer + hops)


def figures(parameters: int, mult_adds: int, devices: int, given: Assumptions) -> Figures:
    """One training step.

    Args:
        parameters: those that are trained.
        mult_adds: of one image, forward.
        devices: how many train together.
        given: the machine and the step.

    Raises:
        InputError: see `all_reduce`.
    """
    flops = FORWARD_AND_BACKWARD * FLOPS_A_MULT_ADD * mult_adds * given.batch
    compute = flops / (given.peak_tflops * 1e12 * given.utilization)
    traffic = all_reduce(parameters * given.gradient_bytes, devices, given)
    hidden = min(given.overlap * traffic.seconds, BACKWARD_SHARE * compute)
    step = compute + traffic.seconds - hidden
    return Figures(
        devices=devices,
        bytes_sent=traffic.inside + traffic.across,
        bytes_sent_between_nodes=traffic.across,
        flops=flops,
        compute=compute,
        communication=traffic.seconds,
        step=step,
        images_per_second=devices * given.batch / step,
        efficiency=compute / step,
    )


def count(name: str) -> tuple[int, int]:
    """Trained parameters, and mult-adds of one image, of a size with 1,000 classes at its own image size."""
    import keras_vit
    from keras_vit.model.config import default_channels, default_image_size

    side = default_image_size(name)
    shape = (side, side, default_channels(name))
    model = keras_vit.ViT.from_variant(name, image_shape=shape, num_classes=1000)
    totals = keras_vit.summary(model).totals
    assert totals.mult_adds_per_image is not None  # every layer of ViT has a rule
    return totals.trainable, totals.mult_adds_per_image


@dataclass(frozen=True)
class Scaling:
    """One model on several numbers of devices; mult-adds are those of one image, forward."""

    model: str
    parameters: int
    mult_adds: int
    rows: list[Figures]


def scale(name: str, devices: tuple[int, ...], given: Assumptions) -> Scaling:
    """Builds a model to count its parameters and mult-adds, and makes the figures."""
    parameters, mult_adds = count(name)
    return Scaling(name, parameters, mult_adds, [figures(parameters, mult_adds, n, given) for n in devices])


def table(rows: list[Figures]) -> str:
    """The figures as text, one line per number of devices."""
    head = (
        "devices",
        "sent MB",
        "to other nodes MB",
        "TFLOP",
        "compute ms",
        "communication ms",
        "step ms",
        "images/s",
        "efficiency",
    )
    body = [
        (
            f"{row.devices}",
            f"{row.bytes_sent / 1e6:,.1f}",
            f"{row.bytes_sent_between_nodes / 1e6:,.1f}",
            f"{row.flops / 1e12:.2f}",
            f"{row.compute * 1e3:.2f}",
            f"{row.communication * 1e3:.2f}",
            f"{row.step * 1e3:.2f}",
            f"{row.images_per_second:,.0f}",
            f"{row.efficiency:.1%}",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    lines = [head, *body]
    return "\n".join("  ".join(map(str.rjust, line, widths)) for line in lines)


@dataclass(frozen=True)
class Options:
    """How data-parallel training of a ViT would scale, by arithmetic; see the top of this file."""

    model: tuple[str, ...] = ("B/16", "L/16")
    """size/patch, one or more"""
    devices: tuple[int, ...] = (1, 8, 64, 512)
    """numbers of devices, one line per number; bytes and FLOPs are those of one device and step"""
    assumptions: Annotated[Assumptions, tyro.conf.arg(name="")] = field(default_factory=Assumptions)
    json: bool = False
    """print assumptions and figures as JSON, in bytes, FLOPs and seconds"""


def main(options: Options):
    for devices in options.devices:
        all_reduce(0, devices, options.assumptions)  # refuses a wrong number before a large model is built
    found = [scale(name, options.devices, options.assumptions) for name in options.model]
    if options.json:
        models = [dataclasses.asdict(model) for model in found]
        print(json.dumps({"assumptions": dataclasses.asdict(options.assumptions), "models": models}))
        return
    for model in found:
        size = f"{model.parameters:,} parameters, {model.mult_adds / 1e9:.2f} G mult-adds per image"
        print(f"{model.model}: {size}")
        print(table(model.rows), end="\n\n")


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except InputError as error:
        print("scaling:", error, file=sys.stderr)
        sys.exit(2)
