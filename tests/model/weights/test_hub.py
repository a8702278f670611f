"""Repositories of the Hugging Face Hub, from a small server on the loopback that answers as the Hub does."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest
from safetensors.numpy import save

from tests.helpers.paths import ROOT
from tests.helpers.random_tensors import random_tensors

pytestmark = pytest.mark.same_on_every_backend

MAIN, OLD = "a" * 40, "b" * 40
CARD = b"---\nlicense: apache-2.0\n---\n"
SHAPES = {"cls_token": (1, 1, 8), "patch_embed.proj.weight": (8, 3, 4, 4), "norm.bias": (8,)}
TENSORS = random_tensors(SHAPES)
TIMM = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"


def shards():
    parts = {"model-00001-of-00002.safetensors": ["cls_token"]}
    parts["model-00002-of-00002.safetensors"] = [name for name in TENSORS if name != "cls_token"]
    where = {name: part for part, names in parts.items() for name in names}
    return {
        "model.safetensors.index.json": json.dumps({"weight_map": where}).encode(),
        **{part: save({name: TENSORS[name] for name in names}) for part, names in parts.items()},
    }


CONFIG = json.dumps({"model_type": "vit"}).encode()
REPOSITORIES = {
    # repository -> commit -> files
    f"timm/{TIMM}": {
        MAIN: {
            "config.json": json.dumps({"architecture": "vit_tiny_patch16_224"}).encode(),
            "model.safetensors": save(TENSORS),
            "README.md": CARD,
            "pytorch_model.bin": b"not needed",
        },
        OLD: {"model.safetensors": save(random_tensors(SHAPES, seed=1))},
    },
    "some/sharded": {MAIN: {"config.json": CONFIG, **shards()}},
    "some/images": {MAIN: {"dog.png": b"", "train/optimizer.pt": b""}},
    "some/broken": {MAIN: {"config.json": CONFIG, "model.safetensors": save(TENSORS)}},
    "some/busy": {},
    "some/closed": {},
}
BRANCHES = {"main": MAIN, "old": OLD, MAIN: MAIN, OLD: OLD}


class Hub(BaseHTTPRequestHandler):
    """The two addresses of the Hub that a download asks: what is in a repository, and a file of it."""

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer()

    def answer(self, with_body=True):
        self.server.asked.append(f"{self.command} {self.path}")
        parts = unquote(self.path).partition("?")[0].strip("/").split("/")
        is_list = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if is_list else parts
        repository = f"{owner}/{name}"
        commits = REPOSITORIES.get(repository)
        revision = rest[1] if len(rest) > 1 else "main"
        if commits is None:
            return self.refuse(401, "RepoNotFound")
        if repository == "some/closed":
            return self.refuse(403, "GatedRepo")
        if repository == "some/busy":
            return self.refuse(500)
        commit = BRANCHES.get(revision)
        if commit not in commits:
            return self.refuse(404, "RevisionNotFound")
        files = commits[commit]
        if is_list:
            siblings = [{"rfilename": name} for name in files]
            body = json.dumps({"id": repository, "sha": commit, "siblings": siblings}).encode()
            return self.send(body, with_body, {"Content-Type": "application/json"})
        if rest[2] not in files:
            return self.refuse(404, "EntryNotFound")
        body = files[rest[2]]
        headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": commit}
        cut = repository == "some/broken" and rest[2] == "model.safetensors"
        return self.send(body, with_body, headers, len(body) // 2 if cut else len(body))

    def send(self, body, with_body, headers, length=None):
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body[:length])

    def refuse(self, status, code=None):
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


OPEN = """
import json, sys
from keras_vit.errors import InputError
from keras_vit.model.weights.sources import open_checkpoint
for source in sys.argv[1:]:
    try:
        found = open_checkpoint(source)
    except InputError as error:
        print(json.dumps({"error": str(error)}))
        continue
    origin = found.origin
    print(json.dumps({
        "tensors": {name: tensor.tolist() for name, tensor in found.tensors.items()},
        "config": found.config, "name": found.name, "notes": found.notes, "source": origin.source,
        "files": [path.name for path in origin.files], "sha256": origin.sha256,
        "revision": origin.revision, "licence": origin.licence,
    }))
"""


def opened(sources, cache, endpoint, **variables):
    """What a process of its own finds at sources: the Hub's address is read when its client is imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **variables,
    }
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", OPEN, *sources],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def address(server):
    return f"http://127.0.0.1:{server.server_port}"


def nobody():
    """An address where no server listens."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def plain(tensors):
    return {name: tensor.tolist() for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def cache(hub, tmp_path_factory):
    """The cache after a first download, and what was found."""
    folder = tmp_path_factory.mktemp("hub")
    hub.asked.clear()
    sources = [f"timm:{TIMM}", "hf:some/sharded", f"timm:{TIMM}@old", f"hf:timm/{TIMM}@{OLD}"]
    return folder, opened(sources, folder, address(hub)), list(hub.asked)


def test_a_repository_of_timm(cache):
    _, (found, *_), asked = cache
    body = REPOSITORIES[f"timm/{TIMM}"][MAIN]["model.safetensors"]
    assert found == {
        "tensors": plain(TENSORS),
        "config": {"architecture": "vit_tiny_patch16_224"},
        "name": TIMM,
        "notes": [],
        "source": f"timm:{TIMM}",
        "files": ["model.safetensors"],
        "sha256": hashlib.sha256(body).hexdigest(),
        "revision": MAIN,
        "licence": "apache-2.0",
    }
    assert not any("pytorch_model.bin" in line for line in asked)


def test_a_repository_in_shards(cache):
    _, (_, found, *_), _ = cache
    assert found["tensors"] == plain(TENSORS)
    assert found["files"] == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert found["config"] == {"model_type": "vit"}
    assert (found["name"], found["revision"], found["licence"]) == ("some/sharded", MAIN, None)


@pytest.mark.parametrize("which", [2, 3], ids=["branch", "commit"])
def test_a_revision(cache, which):
    found = cache[1][which]
    assert found["tensors"] == plain(random_tensors(SHAPES, seed=1))
    assert found["revision"] == OLD
    assert found["name"] == TIMM
    assert found["licence"] == "apache-2.0"  # of the table: this revision has no card
    assert "the table of published names" in found["notes"][0]


@pytest.mark.parametrize("offline", [False, True], ids=["no connection", "HF_HUB_OFFLINE"])
def test_without_a_network_the_cache_serves(cache, offline):
    folder, first, _ = cache
    variables = {"HF_HUB_OFFLINE": "1"} if offline else {}
    sources = [found["source"] for found in first]
    *again, other = opened([*sources, "hf:some/other"], folder, nobody(), **variables)
    for one, found in zip(first, again, strict=True):
        note, *others = found["notes"]
        assert "read from the cache" in note
        assert ("HF_HUB_OFFLINE is set" in note) == offline
        assert found | {"notes": others} == one
    assert "some/other is not in the cache and cannot be downloaded" in other["error"]
    assert (
        "preprocessor_config.json and model.safetensors from https://huggingface.co/some/other/tree/main"
        in other["error"]
    )
    assert "--init FOLDER" in other["error"]
    assert ("HF_HUB_OFFLINE is set" in other["error"]) == offline
    assert "\n" not in other["error"]


REFUSED = {
    "hf:some/missing": "The Hub has no repository some/missing that is open to you",
    f"timm:{TIMM}@nightly": f"The repository timm/{TIMM} has no revision nightly",
    "hf:some/closed": "is open only to those who have accepted its terms",
    "hf:some/images": "The repository some/images has no weights that can be read (it has dog.png, train/",
    "hf:some/../name": "is not the name of a repository",
    "hf:some/busy": "cannot be downloaded (the Hub answered 500)",
    "hf:some/broken": "cannot be downloaded",
}


@pytest.mark.long
def test_what_the_hub_does_not_give(hub, tmp_path):
    """One sentence each. A download that was cut off leaves nothing that looks whole."""
    found = opened(REFUSED, tmp_path, address(hub))
    for (source, words), answer in zip(REFUSED.items(), found, strict=True):
        assert words in answer.get("error", ""), source
        assert "\n" not in answer["error"]
    (again,) = opened(["hf:some/broken"], tmp_path, address(hub), HF_HUB_OFFLINE="1")
    assert "not in the cache" in again["error"]
