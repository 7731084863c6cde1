"""A product of two matrices, block by block.

    python examples/gemm.py [--size 1024] [--block 512]
"""

from __future__ import annotations

import argparse
from typing import Any, List

import numpy

import foresail


@foresail.task
def multiply_add(rows: List[Any], columns: List[Any]) -> Any:
    """One block of the product: the sum of the products along a row and a column of blocks."""
    total = rows[0] @ columns[0]
    for left, right in zip(rows[1:], columns[1:]):
        total += left @ right
    return total


def product(a: Any, b: Any, block: int) -> "List[List[foresail.Value[Any]]]":
    """The blocks of `a @ b`, lazily; each block of an argument is written once, however many tasks read it."""
    n = len(a) // block
    cut = [slice(at * block, (at + 1) * block) for at in range(n)]
    lefts = [[numpy.ascontiguousarray(a[i, k]) for k in cut] for i in cut]
    rights = [[numpy.ascontiguousarray(b[k, j]) for k in cut] for j in cut]
    return [[multiply_add(lefts[i], rights[j]) for j in range(n)] for i in range(n)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--block", type=int, default=512)
    arguments = parser.parse_args()
    random = numpy.random.default_rng(0)
    left, right = random.random((2, arguments.size, arguments.size))
    found = numpy.block(foresail.compute(product(left, right, arguments.block)))
    print("largest error:", abs(found - left @ right).max())
