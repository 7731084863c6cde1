"""The singular values of a tall matrix, from the R factor of its TSQR.

    python examples/svd.py [--rows 40000] [--columns 64] [--parts 8]
"""

from __future__ import annotations

import argparse
from typing import Any

from tsqr import tsqr

import foresail


@foresail.task
def singular_values(r: Any) -> Any:
    """Those of the matrix are those of its R factor."""
    import numpy

    return numpy.linalg.svd(r, compute_uv=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--parts", type=int, default=8)
    arguments = parser.parse_args()
    values = singular_values(tsqr(arguments.rows, arguments.columns, arguments.parts)).compute()
    print("largest and smallest singular value:", values[0], values[-1])
