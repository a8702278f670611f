"""The arithmetic of benchmarks/scaling.py."""

import dataclasses
import importlib.util
import itertools
import json
import sys

import pytest

from keras_vit.errors import InputError
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.same_on_every_backend

SCRIPT = ROOT / "benchmarks" / "scaling.py"
PARAMETERS, MULT_ADDS = 1_000_000, 3_000_000_000
ENDLESS = dict(node_bandwidth=1e30, net_bandwidth=1e30, node_latency=0, net_latency=0)


@pytest.fixture(scope="module")
def scaling():
    """The script as a module, also in sys.modules, where dataclasses need it."""
    spec = importlib.util.spec_from_file_location("scaling", SCRIPT)
    module = sys.modules["scaling"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scaling"]


@pytest.fixture
def figures(scaling):
    """A function that computes the figures for a number of devices, with changed assumptions."""
    return lambda devices, **changes: scaling.figures(
        PARAMETERS, MULT_ADDS, devices, scaling.Assumptions(**changes)
    )


def test_one_device_is_the_reference(figures):
    one = figures(1)
    assert one.bytes_sent == one.bytes_sent_between_nodes == one.communication == 0
    assert one.efficiency == 1
    assert one.step == one.compute == pytest.approx(6 * 3e9 * 64 / (0.4 * 989.4e12))
    assert one.images_per_second == pytest.approx(64 / one.step)


def test_two_devices_by_hand(figures):
    """Each device sends half of its 4 MB of gradients, then half of the sums: 4 MB, in two hops."""
    two = figures(2, node_bandwidth=100, link_utilization=0.5, node_latency=3)
    assert two.bytes_sent == 4e6
    assert two.bytes_sent_between_nodes == 0
    assert two.communication == pytest.approx(4e6 / 50e9 + 2 * 3e-6)
    assert two.step == two.compute + two.communication
    assert two.efficiency == pytest.approx(two.compute / (two.compute + 86e-6))


def test_two_nodes_of_four_by_hand(figures):
    """Within a node 2 x 3/4 of 4 MB in 2 x 3 hops; between nodes 2 x 1/2 of 1 MB per device in 2 hops."""
    links = dict(node_bandwidth=100, net_bandwidth=10, link_utilization=1, node_latency=1, net_latency=5)
    eight = figures(8, devices_a_node=4, **links)
    assert eight.bytes_sent == pytest.approx(7e6)
    assert eight.bytes_sent_between_nodes == pytest.approx(1e6)
    assert eight.communication == pytest.approx(6e6 / 100e9 + 1e6 / 10e9 + 6 * 1e-6 + 2 * 5e-6)


@pytest.mark.parametrize("devices", [2, 8, 16, 64, 512])
def test_a_device_sends_as_much_as_in_one_ring(figures, devices):
    assert figures(devices).bytes_sent == pytest.approx(2 * (devices - 1) / devices * 4 * PARAMETERS)


def test_unlimited_links_cost_nothing(figures):
    assert figures(512, **ENDLESS).efficiency == pytest.approx(1)


def test_full_overlap_hides_the_shorter_time(figures):
    hidden = figures(512, overlap=1, batch=1024)
    assert 0 < hidden.communication < 2 / 3 * hidden.compute
    assert hidden.efficiency == 1
    longer = figures(512, overlap=1, net_bandwidth=0.1)
    assert longer.communication > longer.compute
    assert longer.step == pytest.approx(longer.compute / 3 + longer.communication)


def test_more_devices_more_images_at_less_efficiency(figures):
    rows = [figures(devices) for devices in (1, 2, 4, 8, 16, 64, 512, 4096)]
    for fewer, more in itertools.pairwise(rows):
        assert more.images_per_second > fewer.images_per_second
        assert more.efficiency < fewer.efficiency
        assert more.efficiency == pytest.approx(
            more.images_per_second / (more.devices * rows[0].images_per_second)
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(batch=0), r"^batch must be 1 or more. Received: batch=0$"),
        (dict(devices_a_node=0), r"^devices_a_node must be 1 or more. Received: devices_a_node=0$"),
        (dict(peak_tflops=-1), r"^peak_tflops must be above 0. Received: peak_tflops=-1$"),
        (dict(utilization=1.5), r"^utilization must be above 0 and 1 at most. Received: utilization=1.5$"),
        (dict(net_bandwidth=0), r"^net_bandwidth must be above 0. Received: net_bandwidth=0$"),
        (dict(net_latency=-2), r"^net_latency must be 0 or more. Received: net_latency=-2$"),
        (dict(overlap=2), r"^overlap must be 0 or more and 1 at most. Received: overlap=2$"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_wrong_assumptions(scaling, changes, message):
    with pytest.raises(InputError, match=message):
        scaling.Assumptions(**changes)


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (0, r"^devices must be 1 or more. Received: devices=0$"),
        (12, r"^devices must fill whole nodes of 8. Received: devices=12$"),
    ],
)
def test_wrong_devices(figures, devices, message):
    with pytest.raises(InputError, match=message):
        figures(devices)


def test_counts_come_from_the_package(scaling):
    """The counts of the model of the reference study, with a head of 1,000 classes instead of 6."""
    assert scaling.count("defect/4") == (508_166 + 994 * (128 + 1), 32_315_136 + 994 * 128)


def test_prints_a_table_and_json(scaling, capsys, monkeypatch):
    monkeypatch.setattr(scaling, "count", lambda name: (PARAMETERS, MULT_ADDS))
    scaling.main(scaling.Options(model=("B/16",), devices=(1, 16)))
    title, head, one, many, _ = capsys.readouterr().out.split("\n", 4)
    assert title == "B/16: 1,000,000 parameters, 3.00 G mult-adds per image"
    assert len(head) == len(one) == len(many)
    assert one.split() == ["1", "0.0", "0.0", "1.15", "2.91", "0.00", "2.91", "21,987", "100.0%"]

    scaling.main(scaling.Options(model=("B/16",), devices=(16,), json=True))
    found = json.loads(capsys.readouterr().out)
    given = scaling.Assumptions()
    assert found["assumptions"] == dataclasses.asdict(given)
    (model,) = found["models"]
    assert model["rows"] == [dataclasses.asdict(scaling.figures(PARAMETERS, MULT_ADDS, 16, given))]
