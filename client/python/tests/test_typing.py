"""Type hints survive the decorator: what a type checker finds in a program that uses the package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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


def test_the_program_of_the_readme_has_the_right_types(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    root = Path(__file__).parent.parent
    (first,) = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    for name, text in (("readme", first), ("howto", MAP_AND_REDUCE)):
        (tmp_path / f"{name}.py").write_text(text)
    names = [str(path) for path in sorted(tmp_path.glob("*.py"))]
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), *names]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=110)
    assert "Success" in done.stdout, done.stdout


def test_a_type_checker_sees_arguments_and_results(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(program)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, timeout=110)
    said = re.findall(r"program\.py:(\d+): (?:note: Revealed|error:) ?(.*)", done.stdout)
    found = {int(line): text for line, text in said}
    expected = {at: line.split("  # ")[1] for at, line in enumerate(PROGRAM.splitlines(), 1) if "  # " in line}
    assert found.keys() == expected.keys(), done.stdout
    for at, what in expected.items():
        if what != "error":
            assert re.sub(r"foresail\._values\.|builtins\.", "", found[at]).endswith(f'type is "{what}"'), found[at]
