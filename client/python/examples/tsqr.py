"""The R factor of a tall matrix by a tree of QR factorisations (TSQR, Demmel et al. 2012).

    python examples/tsqr.py [--rows 40000] [--columns 64] [--parts 8]
"""

from __future__ import annotations

import argparse
from typing import Any, List

import numpy

import foresail


@foresail.task
def part(number: int, rows: int, columns: int) -> Any:
    """Some rows of the matrix, made where they are needed."""
    import numpy

    return numpy.random.default_rng(number).random((rows, columns))


@foresail.task
def r_of(blocks: List[Any]) -> Any:
    """The R factor of blocks that stand on one another, with a diagonal that is not negative."""
    import numpy

    r = numpy.linalg.qr(numpy.vstack(blocks), mode="r")
    return r * numpy.where(numpy.diag(r) < 0, -1.0, 1.0)[:, None]


def tsqr(rows: int, columns: int, parts: int) -> "foresail.Value[Any]":
    """The R factor, lazily."""
    level = [r_of([part(number, rows // parts, columns)]) for number in range(parts)]
    while len(level) > 1:
        level = [r_of(level[at : at + 2]) for at in range(0, len(level), 2)]
    return level[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--parts", type=int, default=8)
    arguments = parser.parse_args()
    r = tsqr(arguments.rows, arguments.columns, arguments.parts).compute()
    each = arguments.rows // arguments.parts
    whole = numpy.vstack([part.function(n, each, arguments.columns) for n in range(arguments.parts)])
    print("largest error of R'R:", abs(r.T @ r - whole.T @ whole).max())
