"""The GPUs that processes may be given: those that the user has chosen, or those of the driver."""

import pytest

from keras_vit.process.children import gpus

pytestmark = pytest.mark.same_on_every_backend


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0", ["0"]),
        ("0,1", ["0", "1"]),
        ("1, 0", ["1", "0"]),
        ("0,-1,1", ["0"]),
        ("GPU-8932f937,MIG-GPU-1/2/3", ["GPU-8932f937", "MIG-GPU-1/2/3"]),
    ],
)
def test_the_gpus_that_were_chosen(chosen, found, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert gpus() == found


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("printf '0\\n1\\n'", ["0", "1"]),
        ('test "$*" = "--query-gpu=index --format=csv,noheader" && echo 4', ["4"]),
        ("echo No devices were found", []),
        ("echo 0; exit 9", []),
        ("true", []),
        (None, []),
    ],
)
def test_the_gpus_of_the_driver(script, found, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    if script:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    assert gpus() == found
