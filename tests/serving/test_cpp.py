"""An exported run in a C++ program, with the loader and the session that TensorFlow Serving uses."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import keras_vit
from tests.helpers import tiny
from tests.serving.served_images import BAD, BOMBS, FILES

COMPILER = next(filter(shutil.which, ("c++", "g++", "clang++")), None)

pytestmark = [
    pytest.mark.same_on_every_backend,
    pytest.mark.long,
    pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler: c++, g++ or clang++"),
    pytest.mark.skipif(os.name != "posix", reason="links as Linux does"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The compiled `serve_bundle`, linked only to the libraries of the installed TensorFlow."""
    folder = tf.sysconfig.get_lib()
    # The kernels register themselves: no symbol refers to their library, so the linker would omit it.
    libraries = ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
    out = tmp_path_factory.mktemp("program") / "serve_bundle"
    command = [COMPILER, Path(__file__).with_name("serve_bundle.cc"), "-o", out, "-w"]
    command += [
        *tf.sysconfig.get_compile_flags(),
        f"-L{folder}",
        f"-Wl,-rpath,{folder}",
        "-Wl,--no-as-needed",
    ]
    process = subprocess.run([*map(str, command), *libraries], capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
    return out


def ask(program, folder, paths):
    """The columns of the output of the program, by the names of the outputs."""
    process = run_program(program, folder, *paths)
    assert process.returncode == 0, process.stderr
    rows = [line.split("\t") for line in process.stdout.splitlines()]
    assert len(rows) == len(paths)
    reject, confidence, label, probabilities = zip(*rows, strict=True) if rows else [()] * 4
    return {
        "reject": np.array(reject, int),
        "confidence": np.array(confidence, "float32"),
        "label": [name.encode() for name in label],
        "probabilities": np.array([row.split(" ") for row in probabilities], "float32"),
    }


def run_program(program, *arguments):
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=300)


@pytest.fixture
def paths(drawn_images, tmp_path):
    """Good images, with damaged ones, bombs, and each kind of file between them."""
    drawn = [drawn_images / name / f"{i}.png" for name in tiny.CLASSES for i in range(4)]
    others = []
    for i, content in enumerate((BAD | BOMBS | FILES).values()):
        others.append(tmp_path / f"{i}")
        others[-1].write_bytes(content)
    return [*drawn[:5], *others, *drawn[5:]]


def test_the_answers_equal_those_of_python_and_of_keras(program, bundle, run, paths):
    found = ask(program, bundle.path, paths)

    serve = tf.saved_model.load(str(bundle.path)).signatures["serving_default"]
    of_python = serve(image_bytes=tf.constant([path.read_bytes() for path in paths]))
    np.testing.assert_allclose(found["probabilities"], of_python["probabilities"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["confidence"], of_python["confidence"], rtol=0, atol=1e-6)
    assert found["label"] == of_python["label"].numpy().tolist()
    np.testing.assert_array_equal(found["reject"], of_python["reject"])

    bombs = slice(5 + len(BAD), 5 + len(BAD) + len(BOMBS))
    assert not found["probabilities"][bombs].any()
    assert found["reject"][bombs].all()
    # Pillow reads TIFF for Python; the bundle, which has no Pillow, declines it.
    tiff = 5 + list(BAD).index("TIFF")
    assert not found["probabilities"][tiff].any()
    assert found["reject"][tiff]
    others = np.delete(np.arange(len(paths)), [*range(bombs.start, bombs.stop), tiff])
    for i, of_keras in zip(others, keras_vit.predict(run, [paths[i] for i in others]), strict=True):
        decodes = of_keras.label is not None
        assert found["probabilities"][i].any() == decodes, paths[i]
        assert found["label"][i] == (of_keras.label or "").encode()
        assert found["reject"][i] == of_keras.reject
        if decodes:
            expected = list(of_keras.probabilities.values())
            np.testing.assert_allclose(found["probabilities"][i], expected, rtol=0, atol=1e-5)
    assert set(found["reject"]) == {0, 1}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_small_batches(count, program, bundle, paths):
    found = ask(program, bundle.path, paths[4 : 4 + count])  # the second is damaged
    assert [row.any() for row in found["probabilities"]] == [True, False][:count]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "give the folder of a version"),
        (["nosuch"], "Could not find SavedModel"),
        (["BUNDLE", "nosuch.png"], "cannot read nosuch.png"),
    ],
)
def test_wrong_arguments(arguments, complaint, program, bundle):
    process = run_program(
        program, *[str(bundle.path) if argument == "BUNDLE" else argument for argument in arguments]
    )
    assert process.returncode == 1
    assert complaint in process.stderr
