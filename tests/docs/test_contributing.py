"""CONTRIBUTING.md: the files that it names exist, and its table is the layers contract."""

import re
import tomllib

import pytest

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.same_on_every_backend

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|([^|]*)\|$", PAGE, re.MULTILINE)
FOLDERS = [
    (re.findall(r"`([\w./]+)`", folders), re.findall(r"`([\w./]+)`", files)) for folders, _, files in ROWS
]


def test_the_table_is_the_layers_contract():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = next(c["layers"] for c in settings["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    contract = [room.strip() for layer in layers if "(" not in layer for room in layer.split("|")]
    table = [name.strip("/").removesuffix(".py") for names, _ in FOLDERS for name in names]
    assert table == [room for room in contract if room != "__main__"]


@pytest.mark.parametrize(("names", "files"), FOLDERS, ids=lambda value: value[0] if value else "")
def test_the_files_of_the_table_exist(names, files):
    for name in names:
        assert (ROOT / "keras_vit" / name).exists()
    for name in files:
        if name.endswith((".py", ".jinja", "/")):
            assert (ROOT / "keras_vit" / names[0] / name).exists(), name


def test_the_files_of_the_text_exist():
    text = re.sub(r"^\|.*$", "", PAGE, flags=re.MULTILINE)
    found = {name for name in re.findall(r"(?<![\w-])[\w.-]+/[\w./-]*\w", re.sub(r"https?://\S+", "", text))}
    found = {name for name in found if "NAME" not in name and not name.startswith((".venv", "build"))}
    assert len(found) >= 20
    missing = [name for name in found if not any((ROOT / room / name).exists() for room in ("", "keras_vit"))]
    assert not missing
