"""A Dask array computed by Foresail: needs Dask.

    python examples/dask_array.py
"""

from __future__ import annotations

import dask
import dask.array as da

import foresail.dask

if __name__ == "__main__":
    x = da.random.default_rng(0).random((2_000, 2_000), chunks=(500, 2_000))
    with dask.config.set(scheduler=foresail.dask.get):
        print("mean of the products:", (x.T @ x).mean().compute())
