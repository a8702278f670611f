"""Arrays that claim more than they hold: the files of a run, of a training and of the cache of features."""

import numpy as np
import pytest

from keras_vit import claims
from keras_vit.cache import RowCache
from keras_vit.errors import InputError
from keras_vit.evaluation.ood import OODDetector
from keras_vit.training.checkpoint import load_arrays
from tests.helpers.hostile import ZEROS, npy, write_zip

pytestmark = pytest.mark.same_on_every_backend

NAMES = ("projection", "centers", "threshold", "state", "hashes", "rows")
BOMBS = {
    "a header": (npy((10**6, 10**6)), "claims 4 TB and has 128 bytes"),
    "zeros": (npy((len(ZEROS) // 4,), ZEROS), "claims to hold 503 MB of data and has"),
}


@pytest.mark.parametrize(("content", "message"), BOMBS.values(), ids=BOMBS.keys())
def test_arrays_are_not_unpacked(content, message, tmp_path):
    path = write_zip(tmp_path / "arrays.npz", {f"{name}.npy": content for name in NAMES}, compressed=True)
    for read in (OODDetector.load, load_arrays):
        with pytest.raises(InputError, match=message):
            read(path)


def test_a_cache_that_claims_too_much_is_empty(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_VIT_CACHE", str(tmp_path))
    cache = RowCache("weights")
    cache.add({"0" * 64: np.ones(3, "float32")})
    assert len(RowCache("weights").read()) == 1
    write_zip(cache.path, {"hashes.npy": npy((1, 32), bytes(32)), "rows.npy": npy((10**6, 10**6))})
    assert RowCache("weights").read() == {}


@pytest.mark.parametrize(
    ("packed", "most"), [(0, claims.FLOOR), (10**6, claims.FLOOR), (10**9, claims.RATIO * 10**9)]
)
def test_what_a_file_may_unpack_to(packed, most):
    claims.check_unpacked("file", most, packed)
    with pytest.raises(InputError, match="file claims to hold"):
        claims.check_unpacked("file", most + 1, packed)
