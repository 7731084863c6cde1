"""What the tests share: a client on a stack of its own, and a graph that is only built."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import pytest

import foresail
from foresail import _graph

for _name in ("FORESAIL_METAD", "FORESAIL_HOST", "FORESAIL_METAD_TOKEN", "FORESAIL_DATA", "FORESAIL_LOG"):
    os.environ.pop(_name, None)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[foresail.Client]:
    """A client with two workers; the functions of the package use it."""
    with foresail.Client(data=str(tmp_path_factory.mktemp("data")), workers=2, name="tests", progress=False) as client:
        yield client


@pytest.fixture
def built(tmp_path: Path) -> Callable[..., Dict[str, Any]]:
    """Builds the workflow of values: its tasks by id."""

    def build(*values: Any) -> Dict[str, Any]:
        workflow = _graph.build(values, "built", _graph.Constants(str(tmp_path)))
        return {task["id"]: task for task in workflow.spec["tasks"]}

    return build
