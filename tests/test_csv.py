"""CSV files, as spreadsheets open them, and text files."""

import csv

import pytest

from keras_vit.files import read_csv, write_csv, write_text
from keras_vit.text import shown
from tests.helpers import tiny

pytestmark = pytest.mark.same_on_every_backend

FORMULAS = {
    "=1+1": "'=1+1",
    "+cmd|'/C calc'!A0": "'+cmd|'/C calc'!A0",
    "-": "'-",
    "-1+1": "'-1+1",
    "@SUM(1)": "'@SUM(1)",
    "  =1": "'  =1",
    "\uff1d1": "'\uff1d1",
    "\t=1": "\\t=1",
    "\r=1": "\\r=1",
    "\n=1": "\\n=1",
    "'quoted'": "''quoted'",
    "-1.5e-3": "-1.5e-3",
    "+.5": "+.5",
    "a=1": "a=1",
    "caf\udce9\x1b[31m": "caf\\xe9\\x1b[31m",
}


def test_no_cell_of_a_csv_file_is_a_formula(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, [{"=name": text, "value": -1.5} for text in FORMULAS])
    with open(path, newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == ["'=name", "value"]
    assert rows == [[cell, "-1.5"] for cell in FORMULAS.values()]
    assert [row["=name"] for row in read_csv(path)] == [shown(text) for text in FORMULAS]


def test_a_csv_row_with_an_unknown_column_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"columns that the file lacks: \['b'\]"):
        write_csv(tmp_path / "a.csv", [{"a": 1}, {"a": 1, "b": 2}])
    assert tiny.tree(tmp_path) == {}


def test_a_text_file_takes_any_file_name(tmp_path):
    write_text(tmp_path / "a.txt", "caf\udce9 日")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "caf\\udce9 日"
