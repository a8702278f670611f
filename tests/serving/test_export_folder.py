"""The folder of an export: its version, the files of an operator, and that a failed export leaves nothing."""

import json
import os
import shutil
import subprocess
import threading

import pytest

from keras_vit import export
from keras_vit.cli.main import main
from keras_vit.errors import InputError
from keras_vit.files import work_name
from keras_vit.locks import lock_beside
from keras_vit.process.exit_codes import FAILED, WRONG_USAGE
from keras_vit.serving import version_folder
from keras_vit.serving.saved_model import Comparison
from tests.helpers import tiny
from tests.serving.bundle_files import PARTS, files_below
from tests.test_locks import held_by_another

pytest.importorskip("tensorflow_serving", reason="needs the extra serving")

pytestmark = pytest.mark.same_on_every_backend


# Versions, and changes by an operator


@pytest.fixture
def without_model():
    """Exports without the model, which takes most of the time."""

    def write(run, folder, flips):
        (folder / version_folder.SAVED_MODEL).write_text("")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras_vit.serving.bundle.write_saved_model", write)
        patch.setattr("keras_vit.serving.bundle.compare_saved_model", lambda *_: Comparison(1, 0.0, 1))
        yield


@pytest.mark.usefixtures("without_model")
def test_versions_count_up_from_the_newest(run, tmp_path):
    paths = [export(run, tmp_path, version=version).path for version in (None, 7, None, 3, None)]
    assert [path.relative_to(tmp_path).parts for path in paths] == [("vit", v) for v in "17839"]


@pytest.mark.usefixtures("without_model")
def test_a_second_model_keeps_the_changes_of_an_operator(run, tmp_path):
    export(run, tmp_path)
    config = tmp_path / "models.config"
    config.write_text(
        config.read_text().replace('"tensorflow"', '"tensorflow" model_version_policy { all {} }')
    )
    (tmp_path / "compose.yaml").write_text("mine")
    export(run, tmp_path, name="other")
    text = config.read_text()
    assert text.count("config {") == 2
    assert "all {" in text
    assert (tmp_path / "compose.yaml").read_text() == "mine"


@pytest.mark.long
def test_a_server_never_sees_an_incomplete_version(run, tmp_path, monkeypatch):
    """At no step of the export is there a folder that a server would take for a version."""
    seen = []

    def watch(step):
        original = getattr(module_of[step], step)

        def wrapped(*arguments, **options):
            seen.append(version_folder.versions_of(tmp_path / "vit"))
            return original(*arguments, **options)

        monkeypatch.setattr(module_of[step], step, wrapped)

    import keras_vit.serving.bundle as bundle_module

    module_of = dict.fromkeys(
        ("write_saved_model", "compare_saved_model", "write_warmup", "model_card"), bundle_module
    )
    for step in module_of:
        watch(step)
    path = export(run, tmp_path).path
    assert seen == [[]] * 4
    assert files_below(path) == PARTS


# Refused exports


def changed_run(run, folder, **changes):
    """A copy of a run with other entries in the `train` part of its config."""
    copy = shutil.copytree(run, folder / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["train"].update(changes)
    for name in ("root", "root_from_run"):
        config["data"].pop(name)
    (copy / "config.json").write_text(json.dumps(config))
    tiny.seal_again(copy)
    return copy


def unfinished_run(run, folder):
    shutil.copytree(run, folder / "cut.partial")
    return {"run": folder / "cut"}


def gone_images(run, folder):
    return {"run": changed_run(run, folder, data=str(folder / "gone"))}


def taken_version(run, folder):
    (folder / "models/vit/4").mkdir(parents=True)
    (folder / "models/vit/4" / version_folder.SAVED_MODEL).touch()
    return {"version": 4}


def other_format(run, folder):
    (folder / "models/vit/1").mkdir(parents=True)
    (folder / "models/vit/1/model.onnx").touch()
    return {}


def file_as_target(run, folder):
    (folder / "models").touch()
    return {}


def broken_config(run, folder):
    (folder / "models").mkdir()
    (folder / "models/models.config").write_text("no config")
    return {}


REFUSED = [
    (unfinished_run, "is not finished: continue it with `keras-vit train --out"),
    (gone_images, "No such file or folder"),
    (taken_version, "models/vit/4 exists: leave --version out"),
    (other_format, "holds models of another format: give another --name"),
    (file_as_target, "models cannot be made (File exists): choose another --to"),
    (broken_config, "models.config is not a ModelServerConfig"),
    (lambda run, folder: {"version": 0}, "version must be 1 or more and 9223372036854775807 at most"),
    (lambda run, folder: {"name": "../up"}, "A model's name is made of letters"),
    (lambda run, folder: {"name": ""}, "A model's name is made of letters"),
    (
        lambda run, folder: {"format": "caffe"},
        "format must be one of 'savedmodel', 'onnx', 'litert', 'openvino', 'timm', 'huggingface'",
    ),
    (lambda run, folder: {"int8": True}, "--int8 is for litert: leave it out of --format savedmodel."),
    (
        lambda run, folder: {"int8": True, "format": "onnx"},
        "or quantise its file with onnxruntime.quantization",
    ),
    (lambda run, folder: {"int8": True, "format": "openvino"}, "or quantise its file with NNCF"),
    (lambda run, folder: {"run": folder / "none"}, "There is no run folder"),
    (lambda run, folder: {"data": "nowhere"}, "No such file or folder: nowhere"),
]


WRONG_VERSIONS = [
    (
        2**63,
        "version must be 1 or more and 9223372036854775807 at most. Received: version=9223372036854775808",
    ),
    (10**30, "version must be 1 or more and 9223372036854775807 at most"),
    (-1, "version must be 1 or more and 9223372036854775807 at most. Received: version=-1"),
    (True, "version must be a whole number or None. Received: version=True"),
    ("2", "version must be a whole number or None. Received: version='2'"),
    (1.5, "version must be a whole number or None. Received: version=1.5"),
]


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("format", ["savedmodel", "onnx", "timm"])
@pytest.mark.parametrize(("version", "message"), WRONG_VERSIONS, ids=[str(one[0]) for one in WRONG_VERSIONS])
def test_a_version_that_no_server_reads_is_refused_before_the_run_is_opened(
    tmp_path, format, version, message
):
    with pytest.raises(InputError) as refusal:
        export(tmp_path / "no run", tmp_path / "models", format=format, version=version)
    assert message in str(refusal.value)


@pytest.mark.same_on_every_backend
def test_the_largest_version_has_no_next_one(tmp_path):
    (tmp_path / "models/vit" / str(2**63 - 1)).mkdir(parents=True)
    with pytest.raises(InputError, match="is the largest version that there can be: give a --version below"):
        export(tmp_path / "no run", tmp_path / "models")
    with pytest.raises(InputError, match="There is no run folder"):
        export(tmp_path / "no run", tmp_path / "models", version=7)


@pytest.mark.usefixtures("without_model")
@pytest.mark.parametrize(("prepare", "message"), REFUSED, ids=[message[:25] for _, message in REFUSED])
def test_refused_exports_leave_nothing(run, tmp_path, prepare, message):
    given = {"run": run, "to": tmp_path / "models", **prepare(run, tmp_path)}
    before = tiny.tree(tmp_path)
    with pytest.raises(InputError) as refusal:
        export(**given)
    assert message in str(refusal.value)
    assert tiny.tree(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_refused(run, tmp_path, monkeypatch):
    models = tmp_path / "models"
    models.mkdir(mode=0o500)
    if os.access(models, os.W_OK):  # root may write anywhere, so the check for write permission is replaced
        monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(models)))
    assert main(["export", str(run), "--to", str(models)]) == WRONG_USAGE
    models.chmod(0o700)
    assert not list(models.iterdir())


@pytest.mark.parametrize("room", [0, 200_000, 1_500_000])
def test_a_full_disk_gives_a_message_and_leaves_nothing(run, tmp_path, capsys, room):
    disk = tmp_path / "disk"
    disk.mkdir()
    if not shutil.which("mount"):
        pytest.skip("no tmpfs can be mounted: no mount")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={max(room, 4096)}", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.strip()}")
    try:
        code = main(["export", str(run), "--to", str(disk / "models")])
        left = sorted(disk.iterdir())
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert code == FAILED
    assert "The disk is full" in capsys.readouterr().err
    assert left == []


@pytest.mark.long
def test_a_model_with_different_answers_is_not_exported(run, tmp_path, monkeypatch):
    import tensorflow as tf

    from keras_vit.serving.graph import ServedGraph

    right = ServedGraph.classify_prepared

    def wrong(self, prepared, usable):
        found = right(self, prepared, usable)
        return {**found, "probabilities": tf.reverse(found["probabilities"], [1])}

    monkeypatch.setattr(ServedGraph, "classify_prepared", wrong)
    with pytest.raises(
        InputError,
        match=r"exported model differ from those of Keras, so nothing is written: ",
    ):
        export(run, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_what_killed_exports_left_is_removed(run, tmp_path, capsys):
    folder = tmp_path / "vit"
    for name in (".exporting-1", work_name(".exporting"), "mine.new"):
        (folder / name / "below").mkdir(parents=True)
    assert version_folder.versions_of(folder) == []
    with version_folder.new_version(tmp_path, "vit") as new:
        (new.folder / "file").touch()
    assert new.path == folder / "1"
    assert {path.name for path in folder.iterdir()} == {"1", "mine.new"}
    assert [path.name for path in tmp_path.iterdir()] == ["vit"]
    assert "which a command that was killed has left" in capsys.readouterr().out


@pytest.mark.usefixtures("without_model")
def test_a_second_export_of_a_model_is_refused_at_once(run, tmp_path, monkeypatch):
    """Before it looks at anything, so that two formats cannot become versions of one model."""
    monkeypatch.setattr("keras_vit.serving.bundle.own_images", None)
    with held_by_another(lock_beside(tmp_path / "vit")) as other:
        before = tiny.tree(tmp_path)
        with pytest.raises(InputError) as caught:
            export(run, tmp_path)
        assert f"Another export writes {tmp_path / 'vit'} (process {other.pid} on " in str(caught.value)
        assert "): wait for it, or choose another --to." in str(caught.value)
        assert tiny.tree(tmp_path) == before


@pytest.mark.usefixtures("without_model")
def test_exports_of_two_models_at_once_are_both_in_the_servers_file(run, tmp_path, monkeypatch):
    """The second begins and ends while the first has read `models.config` and not yet written it."""
    from keras_vit.serving import bundle

    add, others = bundle.add_model, []

    def add_late(path, name):
        if name == "vit":
            other = threading.Thread(target=lambda: bundle.write_server_files(tmp_path, "other"))
            others.append(other)
            other.start()
            other.join(0.5)
            assert other.is_alive()  # it waits
        add(path, name)

    monkeypatch.setattr(bundle, "add_model", add_late)
    export(run, tmp_path)
    others[0].join(30)
    assert (tmp_path / "models.config").read_text().count("config {") == 2
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_another_model_is_exported_at_the_same_time(tmp_path):
    with version_folder.new_version(tmp_path, "vit") as first, version_folder.new_version(tmp_path, "b") as b:
        assert first.folder != b.folder
    assert (first.path, b.path) == (tmp_path / "vit" / "1", tmp_path / "b" / "1")


def test_a_version_that_was_made_by_something_else_stays(tmp_path):
    with version_folder.new_version(tmp_path, "vit"):
        (tmp_path / "vit" / "1").mkdir()
        (tmp_path / "vit" / "1" / "mine").touch()
    assert version_folder.versions_of(tmp_path / "vit") == [1, 2]


def test_a_version_can_be_read_by_the_user_of_the_server(tmp_path):
    mask = os.umask(0o022)
    try:
        with version_folder.new_version(tmp_path, "vit") as new:
            pass
    finally:
        os.umask(mask)
    assert new.path.stat().st_mode & 0o777 == 0o755
