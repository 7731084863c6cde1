"""Dask's own test suites with Foresail as every scheduler: `python tests/dask_suites.py [quick | all | MODULE...]`.

`quick`, the default, is delayed; `all` has bag and data frames too and takes some minutes. Whatever scheduler
a test names, Foresail computes. Expected failures are listed below with their reasons; the command succeeds where
these fail and nothing else does. Needs Dask, pytest, numpy and pandas; `make test` runs `quick`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List

QUICK = ["dask.tests.test_delayed"]
ALL = [
    *QUICK,
    "dask.bag.tests.test_bag",
    *(f"dask.dataframe.dask_expr.tests.test_{part}" for part in ("collection", "groupby", "shuffle")),
]
WORKERS = 2

EXPECTED: Dict[str, str] = {
    "test_delayed.test_traverse_false": "compares a result with the object that it was made of, in another process",
    "test_bag.test_take_npartitions_warn": "a warning of a task is one of its process",
    "test_bag.test_to_delayed_optimize_graph": "counts calls in its own process",
    "test_bag.test_from_delayed_iterator": "the result of a task is a generator, which cannot be pickled",
    "test_bag.test_reductions_are_lazy": "an argument of a task is a generator, which cannot be pickled",
    "test_bag.test_repartition_partition_size_complex_dtypes": "compares lists of arrays, equal only to themselves",
    "test_bag.test_bag_with_single_callable": "compares a function with its copy",
    "test_collection.test_head": "a warning of a task is one of its process",
}
"""Why tests fail; those of delayed and bag fail alike with Dask's own scheduler of processes."""


def pytest_configure(config: Any) -> None:
    """Replaces every scheduler."""
    import dask

    import foresail
    import foresail.dask

    config.data = tempfile.TemporaryDirectory()
    client = foresail.Client(workers=WORKERS, data=config.data.name, progress=False, name="dask-suites")
    config.foresail = client.__enter__()
    for name in dask.base.named_schedulers:
        dask.base.named_schedulers[name] = foresail.dask.get
    dask.config.set(scheduler=foresail.dask.get)


def pytest_unconfigure(config: Any) -> None:
    """Ends the session."""
    config.foresail.__exit__(None, None, None)
    config.data.cleanup()


def pytest_collection_modifyitems(items: List[Any]) -> None:
    """Marks what is expected to fail; that it passes is a failure."""
    import pytest

    for item in items:
        reason = EXPECTED.get(f"{item.module.__name__.rpartition('.')[2]}.{item.originalname}")
        if reason is not None:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def main(asked: List[str]) -> int:
    """Runs the suites in a process of their own, where nothing is imported yet."""
    modules = {"quick": QUICK, "all": ALL}.get((asked or ["quick"])[0], asked)
    here = Path(__file__).resolve().parent
    path = [str(here), str(here.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "pytest", "-q", "-rxX", "-p", Path(__file__).stem, "-p", "no:cacheprovider"]
    command += ["-c", str(here.parent / "pyproject.toml"), "--rootdir", str(here), "--pyargs", *modules]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(path)}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
