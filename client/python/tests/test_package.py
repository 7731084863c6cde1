"""What the wheel is made of: pyproject.toml beside the workspace, and the files that have to be in it."""

from __future__ import annotations

import inspect
import pathlib
import re
import sys
from typing import Any, Dict

import pytest

import foresail
from foresail import _settings

ROOT = pathlib.Path(__file__).resolve().parents[1]


def read(path: pathlib.Path) -> Dict[str, Any]:
    if sys.version_info < (3, 11):
        pytest.skip("tomllib came with Python 3.11")
    import tomllib

    return tomllib.loads(path.read_text(encoding="utf-8"))


def test_the_wheel_has_the_program_and_the_package() -> None:
    project = read(ROOT / "pyproject.toml")
    assert project["build-system"]["build-backend"] == "maturin"
    settings = project["tool"]["maturin"]
    assert settings["bindings"] == "bin"
    assert (ROOT / settings["python-source"] / settings["module-name"] / "py.typed").exists()
    crate = read(ROOT / settings["manifest-path"])
    # `cargo install` and the wheel bring the same program.
    assert "foresail" in [program["name"] for program in crate.get("bin", [])] or crate["package"]["name"] == "foresail"


def test_cloudpickle_is_all_that_is_required() -> None:
    project = read(ROOT / "pyproject.toml")["project"]
    assert [re.split(r"[^\w]", name)[0] for name in project["dependencies"]] == ["cloudpickle"]
    assert project["requires-python"] == ">=3.9"


def test_the_version_is_that_of_the_workspace() -> None:
    project = read(ROOT / "pyproject.toml")["project"]
    assert project["dynamic"] == ["version"], "maturin takes it from the crate"
    workspace = read(ROOT.parents[1] / "Cargo.toml")["workspace"]["package"]["version"]
    crate = read(ROOT.parent / "Cargo.toml")["package"]["version"]
    assert crate == {"workspace": True} or crate == workspace


def test_the_program_has_the_version_of_the_workspace(client: foresail.Client) -> None:
    workspace = read(ROOT.parents[1] / "Cargo.toml")["workspace"]["package"]["version"]
    assert client.about["version"] == foresail.__version__ == workspace


def test_the_reference_has_every_name_and_every_setting() -> None:
    text = (ROOT.parents[1] / "docs" / "python-api.md").read_text(encoding="utf-8")
    classes = (foresail.Client, foresail.Run, foresail.Plan, foresail.Progress, foresail.Problem, foresail.Value)
    names = {name for each in classes for name in vars(each) if not name.startswith("_")} | set(foresail.__all__)
    for function in (foresail.Client, foresail.task, _settings.run_options):
        kinds = inspect.signature(function).parameters.values()
        names |= {each.name for each in kinds if each.kind is not inspect.Parameter.VAR_KEYWORD}
    names -= {"function"}  # what is decorated
    assert sorted(name for name in names if not re.search(rf"\b{name}\b", text)) == []
