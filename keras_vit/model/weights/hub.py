"""Repositories of the Hugging Face Hub: the files that are needed, through the Hub's own cache."""

import errno
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keras_vit.errors import InputError, first_line
from keras_vit.files import read_bytes

CARD = "README.md"
FRONT_BYTES = 64 * 1024  # of a model card: its licence stands at the beginning
LIKELY = ("config.json", "model.safetensors", "pytorch_model.bin", "model.weights.h5", CARD)
"""Files by which a copy in the cache is found without a network."""


def download(
    repository: str, revision: str | None, choose: Callable[[Sequence[str], str], Sequence[str]]
) -> tuple[Path, str | None, tuple[str, ...]]:
    """Brings the files of a repository into the cache of `huggingface_hub`, as far as they are not there.

    Args:
        repository: such as `"timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"`.
        revision: a branch, a tag or a commit; `None` for the main branch.
        choose: gives of all names of files those that are needed; its second argument is the repository, for
            its messages.

    Returns:
        The folder, the commit, and notes.

    Raises:
        InputError: there is no such repository or revision, it is closed, or the Hub cannot be reached and
            the files are not in the cache.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import OfflineModeIsEnabled

    name = f"{repository}@{revision}" if revision else repository
    try:
        info = HfApi().model_info(repository, revision=revision)
        names = [sibling.rfilename for sibling in info.siblings or ()]
        folder = None
        for file in choose(names, f"The repository {name}"):
            folder = Path(hf_hub_download(repository, file, revision=revision)).parent
    except InputError:
        raise
    except Exception as error:  # of the Hub, of its HTTP client, of the system
        refused = _refused(error, repository, revision)
        if refused:
            raise InputError(refused) from error
        cached = _cached(repository, revision, choose)
        if cached:
            offline = isinstance(error, OfflineModeIsEnabled)
            why = "HF_HUB_OFFLINE is set" if offline else f"the Hub cannot be reached: {first_line(error)}"
            return cached, _commit(cached), (f"read from the cache of huggingface_hub, since {why}",)
        raise InputError(_bring(name, repository, revision, error)) from error
    assert folder is not None
    return folder, info.sha, ()


def _refused(error: Exception, repository: str, revision: str | None) -> str | None:
    """A sentence, if the Hub has answered that it will not give the files; `None` if it did not answer."""
    from huggingface_hub import errors

    page = f"https://huggingface.co/{repository}"
    match error:
        case errors.HFValidationError():
            return (
                f"{repository!r} is not the name of a repository: write hf:OWNER/NAME, with @REVISION or not."
            )
        case errors.GatedRepoError():
            return (
                f"The repository {repository} is open only to those who have accepted its terms: accept them "
                f"at {page}, then log in with `hf auth login`."
            )
        case errors.RevisionNotFoundError():
            return f"The repository {repository} has no revision {revision}: see {page}/commits/main."
        case errors.RepositoryNotFoundError():
            return f"The Hub has no repository {repository} that is open to you: check its name at {page}."
        case errors.DisabledRepoError():
            return f"The Hub has closed the repository {repository}: see {page}."
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise error
    return None


def _bring(name: str, repository: str, revision: str | None, error: Exception) -> str:
    page = f"https://huggingface.co/{repository}/tree/{revision or 'main'}"
    # timm has the mean and the deviation of the pixels in its config.json.
    config = "config.json" if repository.startswith("timm/") else "config.json, preprocessor_config.json"
    return (
        f"{name} is not in the cache and cannot be downloaded ({_reason(error)}): download {config} and "
        f"model.safetensors from {page} on a machine that can, put them into one folder, and give that "
        "folder as the source (--init FOLDER)."
    )


def _reason(error: BaseException) -> str:
    """Why a download failed, without what a client wraps round it."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"the Hub answered {status}" if status else first_line(error).rstrip(".:")


def _cached(
    repository: str, revision: str | None, choose: Callable[[Sequence[str], str], Sequence[str]]
) -> Path | None:
    """The folder of a repository in the cache, if all that is needed is there."""
    from huggingface_hub import try_to_load_from_cache

    for file in LIKELY:
        found = try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(found, str):
            folder = Path(found).parent
            names = [path.name for path in folder.iterdir()]
            try:
                return folder if set(choose(names, repository)) <= set(names) else None
            except InputError:
                return None
    return None


def _commit(folder: Path) -> str | None:
    return folder.name if re.fullmatch("[0-9a-f]{40}", folder.name) else None


def licence_of_card(card: Path) -> str | None:
    """The licence in the front matter of a model card; `None` if it does not say."""
    try:
        text = read_bytes(card, FRONT_BYTES, first=FRONT_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return None
    front = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    if not front:
        return None
    found: dict[str, Any] = dict(
        re.findall(r"^(license|license_name):[ \t]*['\"]?([^\n'\"#]+)", front[1], re.M)
    )
    value, other = (found.get(key, "").strip() for key in ("license", "license_name"))
    return (other if value == "other" else "") or value or None
