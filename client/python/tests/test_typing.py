"""Type hints survive the decorator: what a type checker finds in a program that uses the package."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pytest

PROGRAM = '''
from typing import List

import foresail


@foresail.task
def square(x: int) -> int:
    return x * x


@foresail.task(retries=2)
def total(xs: List[int], scale: float = 1.0) -> float:
    return sum(xs) * scale


value = total([square(2), square(3)], scale=2.0)
reveal_type(value)  # Value[float]
reveal_type(value.compute())  # float
reveal_type(value.submit().result())  # float
reveal_type(square.map([1, 2]))  # Values[int]
reveal_type(square.map([1, 2])[0])  # Value[int]
reveal_type([one.compute() for one in square.map([1, 2])])  # list[int]
reveal_type(total(square.map([1, 2])).compute())  # float
reveal_type(square.map(square(1)))  # Mapped[int]
reveal_type(foresail.when(square(1), square(2), square(3)))  # Value[int]
total("x")  # error
square(y=1)  # error
'''


MAP_AND_REDUCE = """
from typing import Dict, List

import foresail


@foresail.task
def count(path: str) -> Dict[str, int]:
    return {path: 1}


@foresail.task
def merge(parts: List[Dict[str, int]]) -> Dict[str, int]:
    return {key: value for part in parts for key, value in part.items()}


@foresail.task
def paths(folder: str) -> List[str]:
    return [folder]


parts = count.map(["a", "b"])
while len(parts) > 1:
    parts = merge.map([parts[at : at + 4] for at in range(0, len(parts), 4)])
found: Dict[str, int] = parts[0].compute()
mapped: Dict[str, int] = merge(count.map(paths("x"), width=4)).compute()
"""


ROOT = Path(__file__).parent.parent
CHECKERS = ("mypy", "pyright")


def said(checker: str, folder: Path) -> Dict[int, List[str]]:
    """What a type checker says of the programs of a folder, at its strictest: by line, errors as `error`."""
    pytest.importorskip(checker)
    command = [sys.executable, "-m", checker]
    if checker == "mypy":
        command += ["--strict", "--cache-dir", str(folder), *map(str, folder.glob("*.py"))]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=110)
        lines = re.findall(r"\.py:(\d+): (note: Revealed type is|error:) ?(.*)", done.stdout)
        found = [(int(line), what == "error:", text) for line, what, text in lines]
    else:
        settings = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}
        (folder / "pyrightconfig.json").write_text(json.dumps(settings))
        command += ["--outputjson", "--pythonpath", sys.executable, "-p", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=110)
        told = json.loads(done.stdout)["generalDiagnostics"]
        found = [(each["range"]["start"]["line"] + 1, each["severity"] == "error", each["message"]) for each in told]
    assert done.returncode == any(is_error for _, is_error, _ in found), done.stdout + done.stderr
    by_line: Dict[int, List[str]] = {}
    for line, is_error, text in found:
        shown = re.findall(r'"([^"]*)"\Z', text)
        by_line.setdefault(line, []).append("error" if is_error else shown[-1] if shown else text)
    return by_line


@pytest.mark.parametrize("checker", CHECKERS)
def test_the_program_of_the_readme_has_the_right_types(tmp_path: Path, checker: str) -> None:
    (first,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for name, text in (("readme", first), ("howto", MAP_AND_REDUCE)):
        (tmp_path / f"{name}.py").write_text(text)
    assert said(checker, tmp_path) == {}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_type_checker_sees_arguments_and_results(tmp_path: Path, checker: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    found = {
        line: {re.sub(r"foresail\._values\.|builtins\.", "", text) for text in texts}
        for line, texts in said(checker, tmp_path).items()
    }
    expected = {at: {line.split("  # ")[1]} for at, line in enumerate(PROGRAM.splitlines(), 1) if "  # " in line}
    assert found == expected
