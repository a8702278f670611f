"""Many images to a table and into folders; what is left when that is cut off, and how it goes on."""

import csv
import json
import os
import shutil
import zipfile

import pytest

import keras_vit
from keras_vit.cli.main import main
from keras_vit.process.exit_codes import FINE, INCOMPLETE, WRONG_USAGE
from keras_vit.runs import bulk as bulk_module
from keras_vit.runs import stream as stream_module
from keras_vit.runs.bulk import Bulk, Job, Sorting
from keras_vit.runs.stream import predict_stream

COUNT = 36  # images of the fixture


@pytest.fixture
def run(trained):
    return trained[0]


@pytest.fixture
def strips(images, tmp_path):
    """A copy of the images that may be moved, and two files that cannot be read."""
    shutil.copytree(images, tmp_path / "strips")
    (tmp_path / "strips/plain/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    (tmp_path / "strips/empty.jpg").write_bytes(b"")
    return tmp_path / "strips"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """So that 38 images come in several parts, batches and entries of the journal."""
    monkeypatch.setattr(bulk_module, "TOGETHER", 5)
    monkeypatch.setattr(stream_module, "batch_size", lambda model: 8)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_a_stream_answers_as_predict(run, strips, images):
    files = sorted(images.rglob("*.png"))
    streamed = list(predict_stream(run, files))
    at_once = keras_vit.predict(run, files)
    assert [one.image for one in streamed] == [one.image for one in at_once]
    assert [one.label for one in streamed] == [one.label for one in at_once]
    for one, other in zip(streamed, at_once, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    found = list(predict_stream(run, [strips]))
    assert len(found) == COUNT + 2
    assert [one.error is None for one in found].count(False) == 2


@pytest.mark.same_on_every_backend
def test_every_full_batch_has_one_size(run, strips, monkeypatch):
    rows = []
    answer = stream_module.answer_batch

    def noted(model, pixels, wanted=None):
        rows.append((len(pixels), wanted))
        return answer(model, pixels, wanted)

    monkeypatch.setattr(stream_module, "answer_batch", noted)
    assert len(list(predict_stream(run, [strips]))) == COUNT + 2
    assert rows == [(8, 8)] * 4 + [(4, 8)]
    rows.clear()
    list(predict_stream(run, sorted(strips.glob("dots/*.png"))[:3]))
    assert rows == [(3, None)]  # nothing is compiled twice, so nothing is added


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("how", ["copy", "move", "link"])
def test_into_folders_with_a_table(run, strips, tmp_path, how, capsys):
    before = {path.read_bytes() for path in strips.rglob("*.png")}
    words = ["predict", run, strips, "--csv", tmp_path / "out.csv", "--sort-into", tmp_path / "sorted"]
    words += ["--min-confidence", "0.5", f"--{how}"]
    assert main([str(word) for word in words]) == INCOMPLETE
    rows = rows_of(tmp_path / "out.csv")
    assert len(rows) == COUNT + 2
    assert files_in(tmp_path / "sorted") == sorted(
        os.path.relpath(row["sorted_to"], tmp_path / "sorted") for row in rows
    )
    assert {path.read_bytes() for path in (tmp_path / "sorted").rglob("*.png")} == before
    assert len(files_in(strips)) == (0 if how == "move" else COUNT + 2)
    for row in rows:
        folder = os.path.basename(os.path.dirname(row["sorted_to"]))
        unsure = row["confidence"] and float(row["confidence"]) < 0.5
        expected = "_unreadable" if row["error"] else "_rejected" if row["reject"] == "1" else None
        assert folder == (expected or ("_unsure" if unsure else row["label"]))
    printed = capsys.readouterr()
    assert "2  cannot be read" in printed.out
    assert "empty.jpg: empty" in printed.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "sorted", "strips"]


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("how", ["copy", "move"])
@pytest.mark.parametrize("table", [True, False])
def test_a_command_that_is_cut_off_goes_on(run, strips, tmp_path, how, table, monkeypatch):
    opened = keras_vit.load_run(run)

    def bulk():
        where = Sorting(tmp_path / "sorted", how)
        return Bulk(Job(opened, (strips,), csv=tmp_path / "out.csv" if table else None, sorting=where))

    contents = sorted(path.read_bytes() for path in strips.rglob("*.*"))
    place = bulk_module.Sorter.place
    answered = []
    for stop in (3, 9, 14):  # images until the power fails, in the middle of writing one
        placed = 0

        def fail(self, image, target, stop=stop):
            nonlocal placed
            placed += 1
            if placed > stop:
                (self.folder / target).parent.mkdir(exist_ok=True)
                (self.folder / f"{target}.0123abcd.new").write_bytes(b"half")
                raise OSError("power")
            place(self, image, target)

        monkeypatch.setattr(bulk_module.Sorter, "place", fail)
        with pytest.raises(OSError, match="power") as caught:
            answered += [one.answer.image for one in bulk().answers()]
        assert "the same command goes on" in caught.value.__notes__[0]
        assert not (tmp_path / "sorted").exists()
        assert not (tmp_path / "out.csv").exists()
    monkeypatch.setattr(bulk_module.Sorter, "place", place)
    last = bulk()
    assert last.kept >= 14
    asked = []
    read = stream_module.read_images

    def noted(images, *args, **more):
        asked.extend(images)
        return read(images, *args, **more)

    monkeypatch.setattr(stream_module, "read_images", noted)
    found = list(last.answers())
    assert len(asked) == COUNT + 2 - last.kept  # nothing is done twice
    assert len({one.answer.image for one in found}) == COUNT + 2
    sorted_files = [path for path in (tmp_path / "sorted").rglob("*.*") if path.is_file()]
    assert sorted(path.read_bytes() for path in sorted_files) == contents
    assert len(files_in(strips)) == (0 if how == "move" else COUNT + 2)
    left = {"sorted", "strips"} | ({"out.csv"} if table else set())
    assert {path.name for path in tmp_path.iterdir()} == left
    if table:
        whole = keras_vit.predict(run, [one.sorted_to for one in found])
        assert [row["label"] for row in rows_of(tmp_path / "out.csv")] == [one.label or "" for one in whole]


@pytest.mark.same_on_every_backend
def test_a_file_that_changed_in_between_is_looked_at_again(run, strips, tmp_path, monkeypatch):
    opened = keras_vit.load_run(run)
    first = iter(Bulk(Job(opened, (strips,), csv=tmp_path / "out.csv")).answers())
    changed = next(first).answer.image
    first.close()
    shutil.copy(strips / "lines/5.png", changed)
    os.utime(changed, ns=(1, 1))
    with open(tmp_path / "out.csv.partial", "a") as file:
        file.write('{"answer": {"ima')  # a line that was cut off
    again = Bulk(Job(opened, (strips,), csv=tmp_path / "out.csv"))
    assert again.kept == 4
    found = {one.answer.image: one.answer for one in again.answers()}
    assert len(found) == COUNT + 2
    same = keras_vit.predict(run, [strips / "lines/5.png"])[0]
    assert found[changed].probabilities == pytest.approx(same.probabilities, abs=1e-5)


@pytest.mark.same_on_every_backend
def test_another_command_does_not_go_on_with_it(run, strips, tmp_path, capsys):
    rule = {"min_recall": None, "costs": None}  # what the command line gives
    job = Job(keras_vit.load_run(run), (strips,), csv=tmp_path / "out.csv", rule=rule)
    answers = Bulk(job).answers()
    next(answers)
    answers.close()
    words = ["predict", str(run), str(strips / "dots"), "--csv", str(tmp_path / "out.csv")]
    assert main(words) == WRONG_USAGE
    told = capsys.readouterr().err
    assert "holds the answers of another command that was cut off (it differs in the images)" in told
    words = ["predict", str(run), str(strips), "--csv", str(tmp_path / "out.csv")]
    assert main([*words, "--flips-at-test"]) == WRONG_USAGE
    assert main(words) == INCOMPLETE
    assert len(rows_of(tmp_path / "out.csv")) == COUNT + 2


@pytest.mark.same_on_every_backend
def test_json_is_one_list_and_files_with_one_name_are_kept_apart(run, images, tmp_path, capsys):
    words = ["predict", run, images, "--json", "--sort-into", tmp_path / "sorted"]
    assert main([str(word) for word in words]) == FINE
    found = json.loads(capsys.readouterr().out)
    assert len({one["sorted_to"] for one in found}) == COUNT
    for one in found:
        with open(one["image"], "rb") as before, open(one["sorted_to"], "rb") as after:
            assert before.read() == after.read()


@pytest.mark.same_on_every_backend
def test_members_of_a_zip(run, images, tmp_path):
    shutil.make_archive(str(tmp_path / "strips"), "zip", images)
    words = [
        "predict",
        run,
        tmp_path / "strips.zip",
        "--csv",
        tmp_path / "out.csv",
        "--sort-into",
        tmp_path / "s",
    ]
    assert main([str(word) for word in words]) == FINE
    folder = keras_vit.predict(run, sorted(images.rglob("*.png")))
    assert sorted(row["label"] for row in rows_of(tmp_path / "out.csv")) == sorted(
        one.label for one in folder
    )
    assert len(files_in(tmp_path / "s")) == COUNT


@pytest.mark.same_on_every_backend
def test_a_damaged_member_of_a_zip_is_one_that_cannot_be_read(run, images, tmp_path):
    path = tmp_path / "strips.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(3):
            archive.write(images / "dots" / f"{i}.png", f"{i}.png")
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 8] ^= 255
    path.write_bytes(content)
    found = list(predict_stream(run, [path]))
    assert [one.error is None for one in found] == [False, True, True]


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--move"], "--move is for --sort-into: give that too"),
        (["--min-confidence", "0.9"], "--min-confidence is for --sort-into"),
        (["--sort-into", "{}/new", "--copy", "--link"], "--copy and --link exclude each other"),
        (["--sort-into", "{}/new", "--min-confidence", "90"], "--min-confidence must be from 0 to 1"),
        (["--sort-into", "{}/strips"], "exists already and is not empty: give --sort-into a new folder"),
        (["--sort-into", "{}/new", "--move", "--heatmap", "{}/maps"], "omit --move, or --heatmap"),
        (["--csv", "{}/strips/empty.jpg"], "exists already: give --csv a new name"),
        (["--csv", "{}/nosuch/out.csv"], "There is no folder"),
    ],
)
def test_what_is_refused_before_anything_is_written(run, strips, tmp_path, more, message, capsys):
    before = files_in(tmp_path)
    words = ["predict", str(run), str(strips), *(word.format(tmp_path) for word in more)]
    assert main(words) == WRONG_USAGE
    assert message in capsys.readouterr().err
    assert files_in(tmp_path) == before


@pytest.mark.same_on_every_backend
def test_an_empty_folder_is_filled_and_one_inside_the_images_is_not_read(run, strips, tmp_path):
    (strips / "sorted").mkdir()
    words = ["predict", run, strips, "--sort-into", strips / "sorted"]
    assert main([str(word) for word in words]) == INCOMPLETE
    assert len(files_in(strips / "sorted")) == COUNT + 2


@pytest.mark.same_on_every_backend
def test_a_folder_of_one_image_twice_and_of_links(run, images, tmp_path, capsys):
    folder = tmp_path / "strips"
    folder.mkdir()
    shutil.copy(images / "dots/0.png", folder / "0.png")
    words = ["predict", str(run), str(folder), str(folder / "0.png"), "--sort-into", str(tmp_path / "s")]
    assert main(words) == FINE
    assert "1 of the images are given twice" in capsys.readouterr().err
    assert len(files_in(tmp_path / "s")) == 1
    (folder / "1.png").symlink_to(folder / "0.png")
    words = ["predict", str(run), str(folder), "--sort-into", str(tmp_path / "t"), "--move"]
    assert main(words) == WRONG_USAGE
    assert len(files_in(folder)) == 2


@pytest.mark.same_on_every_backend
def test_no_more_than_four_parts_are_in_memory(run, images, monkeypatch):
    parts = []
    read = stream_module.read_images

    def noted(part, *args, **more):
        parts.append(len(part))
        return read(part, *args, **more)

    monkeypatch.setattr(stream_module, "read_images", noted)
    answers = predict_stream(run, sorted(images.rglob("*.png")) * 60)  # 2,160 images
    next(answers)
    assert sum(parts) <= 4 * 256
    answers.close()
