"""The versions that the record of a run or a search keeps."""

from importlib.metadata import PackageNotFoundError, version

from keras_vit.version import __version__


def installed_versions(*packages: str) -> dict[str, str]:
    """The version of keras_vit and of each of these packages that is installed."""
    found = {"keras_vit": __version__}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
