"""Every example runs to its end, where the packages that it needs are installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NEEDS = {
    "dask_array": "dask",
    "gemm": "numpy",
    "image_transform": "sklearn",
    "ml_pipeline": "sklearn",
    "stacking": "numpy",
    "svd": "numpy",
    "tsqr": "numpy",
}
ARGUMENTS = {"text_analysis": [str(EXAMPLES)], "gemm": ["--size", "256", "--block", "128"]}


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    needed = NEEDS.get(name)
    if needed is not None and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *ARGUMENTS.get(name, [])]
    environment = {**os.environ, "FORESAIL_DATA": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if "error" in done.stdout:
        assert float(done.stdout.split()[-1]) < 1e-6
