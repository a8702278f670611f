"""Files of weights that claim more than they hold are refused before anything is unpacked."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_vit.errors import InputError
from keras_vit.model.vit import ViT
from keras_vit.model.weights.read import read_weights
from tests.helpers import hostile
from tests.helpers.hostile import npy, with_config, with_weights, write_zip

pytestmark = pytest.mark.same_on_every_backend


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "model.keras"
    ViT((28, 28, 1), num_classes=3, patch_size=14, dim=16, depth=2, num_heads=2).save(path)
    return hostile.parts_of(path)


def refused(path, message):
    with pytest.raises(InputError, match=message):
        read_weights(path)


@pytest.mark.parametrize(("change", "message"), hostile.HDF5_BOMBS.values(), ids=hostile.HDF5_BOMBS.keys())
def test_hdf5(change, message, parts, tmp_path):
    parts = with_weights(parts, change)
    refused(write_zip(tmp_path / "model.keras", parts), message)
    (tmp_path / "weights.h5").write_bytes(parts[hostile.WEIGHTS])
    refused(tmp_path / "weights.h5", message)


@pytest.mark.parametrize(
    "changes",
    [{"depth": 10**9}, {"mlp_dim": 10**12}, {"num_classes": 10**10}, {"num_registers": 10**9}],
    ids=str,
)
def test_the_config_of_a_huge_model(changes, parts, tmp_path):
    refused(write_zip(tmp_path / "model.keras", with_config(parts, **changes)), r"claims [\w ]*[\d,]{9,} ")


def test_text_in_hdf5_is_not_expanded(parts, tmp_path):
    import h5py

    def repeat(file, name):
        del file[name]
        file.create_dataset(name, (1000,), h5py.string_dtype())[:] = "x" * 1000

    path = write_zip(tmp_path / "model.keras", with_weights(parts, repeat))
    assert any("not numbers" in note for note in read_weights(path).notes)


NPZ = {
    "a header": ({"a.npy": npy((10**6, 10**6))}, "a.npy that claims 4 TB and has 128 bytes"),
    "a header after others": (
        {"b.npy": npy((2,), bytes(8)), "a.npy": npy((10**9,))},
        "a.npy that claims 4 GB",
    ),
    "a negative shape": ({"a.npy": npy((-1,))}, "cut off or damaged"),
    "no array": ({"a.npy": b"nothing"}, "cut off or damaged"),
    "zeros": ({"a.npy": npy((len(hostile.ZEROS) // 4,), hostile.ZEROS)}, "claims to hold 83.9 MB"),
}


@pytest.mark.parametrize(("parts", "message"), NPZ.values(), ids=NPZ.keys())
def test_npz(parts, message, tmp_path):
    refused(write_zip(tmp_path / "weights.npz", parts, compressed=True), message)


def safetensors(header, content=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + content


def tensor(shape, end):
    return {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}


SAFETENSORS = {
    "more than the file": (safetensors(tensor([10**6, 10**6], 4 * 10**12)), "cut off or damaged"),
    "an overflow": (safetensors(tensor([2**63, 4], 16), bytes(16)), "cut off or damaged"),
    "deep JSON": (safetensors(b'{"a":' + b"[" * 200_000), "cut off or damaged"),
    "a long header": (struct.pack("<Q", 90_000_000) + b"{" + bytes(100), "cut off or damaged"),
    "a huge axis of nothing": (safetensors(tensor([0, 10**15], 0)), "which no model has"),
}


@pytest.mark.parametrize(("content", "message"), SAFETENSORS.values(), ids=SAFETENSORS.keys())
def test_safetensors(content, message, tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(content)
    refused(tmp_path / "weights.safetensors", message)


def test_shards_are_checked_one_by_one(tmp_path):
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    save_file({"a": np.ones(3, "float32")}, tmp_path / names[0])
    (tmp_path / names[1]).write_bytes(safetensors(tensor([10**6, 10**6], 4 * 10**12)))
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(tmp_path, "00002-of-00002.safetensors is cut off or damaged")


def test_torch(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(1).expand(10**5, 10**5)}, tmp_path / "expanded.pth")
    refused(tmp_path / "expanded.pth", "claims to hold 40 GB of data and has")
    torch.save({"a": torch.zeros(10)}, tmp_path / "honest.pth")
    parts = hostile.parts_of(tmp_path / "honest.pth")
    bomb = {name: hostile.ZEROS if "/data/" in name else part for name, part in parts.items()}
    refused(write_zip(tmp_path / "bomb.pth", bomb, compressed=True), "claims to hold 83.9 MB of data")
