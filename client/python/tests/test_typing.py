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
reveal_type(square.map([1, 2]))  # list[Value[int]]
reveal_type(square.map(square(1)))  # Mapped[int]
reveal_type(foresail.when(square(1), square(2), square(3)))  # Value[int]
total("x")  # error
square(y=1)  # error
'''


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
