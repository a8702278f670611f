"""The rules of the project: imports, commit hooks, the workflow, the wheel, the documentation site."""

import ast
import graphlib
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import griffe
import grimp
import keras
import keras_tuner
import pytest
import yaml

import keras_vit
import keras_vit.search
import keras_vit.serving.legacy
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.same_on_every_backend


def read_yaml(*path):
    return yaml.safe_load(ROOT.joinpath(*path).read_text(encoding="utf-8"))


def test_imports_point_downwards():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_no_import_cycles():
    """Between modules, including those of one folder, and a package and its own modules."""
    graph = grimp.build_graph("keras_vit", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert sum(map(len, imports.values())) > 200
    list(graphlib.TopologicalSorter(imports).static_order())  # raises CycleError


def test_the_package_prints_through_one_door():
    """`keras_vit.text.say` escapes what others have written; the last handler has no other choice."""
    doors = {"keras_vit/text.py", "keras_vit/cli/failures.py"}
    printing = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "keras_vit").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printing == doors


def public_functions():
    """Public functions, and methods of public classes that do not override one of Keras or KerasTuner."""
    loaded = griffe.load("keras_vit", resolve_aliases=True)
    for package in (keras_vit, keras_vit.search, keras_vit.serving.legacy):
        for name in set(package.__all__) - {"__version__", "RECIPES"}:
            found = loaded[f"{package.__name__}.{name}".removeprefix("keras_vit.")]
            yield from [found] if found.is_function else own_methods(found)


def own_methods(cls):
    bases = (keras.Model, keras_tuner.HyperModel, keras_tuner.Hyperband)
    for method in filter(lambda member: member.is_function, cls.members.values()):
        is_other = method.name.startswith("_") or any(hasattr(base, method.name) for base in bases)
        if method.name == "__init__" or not is_other:
            yield method


def test_public_functions_are_annotated():
    found = list(public_functions())
    assert len(found) >= 30
    for function in found:
        missing = [parameter.name for parameter in function.parameters if parameter.annotation is None]
        assert set(missing) <= {"self", "cls"}, function.path
        assert function.returns is not None or function.name == "__init__", function.path


def test_the_hooks_call_the_tools_of_the_test_extra():
    (local,) = read_yaml(".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    called = []
    for hook in local["hooks"]:
        assert hook["language"] == "system"
        python, option, *command = shlex.split(hook["entry"])
        assert (python, option) == (".venv-test/bin/python", "-m")
        assert find_spec(command[0])
        called.append(" ".join(command).removesuffix(" --force-exclude"))
    assert called == ["ruff check", "ruff format", "mypy"]


def test_the_workflow_runs_the_script():
    workflow = read_yaml(".github", "workflows", "test.yml")
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML 1.1 reads `on` as true
    (job,) = workflow["jobs"].values()
    assert job["runs-on"].startswith("ubuntu-")
    assert job["timeout-minutes"] == 90
    assert job["env"]["PIP_EXTRA_INDEX_URL"].endswith("/cpu")
    (python,) = [
        step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")
    ]
    (command,) = [step["run"] for step in job["steps"] if "run" in step]
    program, script = shlex.split(command)
    assert program == "bash"
    text = (ROOT / script).read_text(encoding="utf-8")
    assert "README.md" in text
    assert f"python{python} -m venv" in (ROOT / "README.md").read_text(encoding="utf-8")
    subprocess.run([program, "-n", ROOT / script], check=True)


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("keras_vit", "tuning", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {f"keras_vit/{path.relative_to(ROOT / 'keras_vit').as_posix()}" for path in package_files()}
    assert held == wanted
    assert {"keras_vit/py.typed", "keras_vit/report/run.html.jinja"} <= held


def package_files():
    found = (ROOT / "keras_vit").rglob("*")
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]


# The documentation site.


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built with the command of README, without warnings."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


class Loaded(HTMLParser):
    """The addresses that a browser loads for a page. Links are not among them."""

    def __init__(self, page):
        super().__init__()
        self.addresses = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "link" and given.get("rel") != "canonical":
            self.addresses.append(given["href"])
        self.addresses += [given[name] for name in ("src", "srcset", "data", "poster") if given.get(name)]
        self.addresses += re.findall(r"url\(([^)]*)", given.get("style") or "")


def test_the_site_loads_nothing_from_a_network(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) >= 15
    for page in pages:
        addresses = Loaded(page).addresses
        assert addresses
        assert not [found for found in addresses if re.match(r"(\w+:)?//", found)], page
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.findall(r"""(?:url\(\s*["']?|@import\s+["'])(?:\w+:)?//[^)"']*""", text), style


def test_every_public_name_is_in_the_reference(site):
    packages = (keras_vit, keras_vit.search, keras_vit.serving.legacy)
    names = {f"{package.__name__}.{name}" for package in packages for name in package.__all__}
    names -= {"keras_vit.__version__"}
    shown = {
        found
        for page in (site / "api").glob("*.html")
        for found in re.findall(r'id="([\w.]+)"', page.read_text())
    }
    assert not names - shown
