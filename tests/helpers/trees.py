"""Folders and zips of small files by a list of their names."""

import zipfile

from tests.helpers.image_files import PNG

TEXTS = (".txt", ".csv", ".xml", ".json", ".db", ".cr2", ".nef", ".md")
"""Suffixes of files that hold no image here."""


def content_of(name, content=PNG):
    """The bytes of a file of this name."""
    return b"text" if name.lower().endswith(TEXTS) else content


def put(folder, *names, content=PNG):
    """Writes files into a folder; a name that ends with / is a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content_of(name, content))
    return folder


def pack(path, *names, content=PNG, compression=zipfile.ZIP_STORED):
    """Writes a zip of such files."""
    with zipfile.ZipFile(path, "w", compression) as packed:
        for name in names:
            packed.writestr(name, b"" if name.endswith("/") else content_of(name, content))
    return path


def in_classes(top, *classes):
    """Two images in each class folder below a folder."""
    return [f"{top}/{name}/{number}.png" for name in classes or ("cat", "dog") for number in (1, 2)]
