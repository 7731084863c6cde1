"""Where the time of a hand-over goes in the processes of Python functions, without engine and store.

    PYTHONPATH=client/python python parts.py [--bytes 100000000] [--rounds 9] [--dir DIRECTORY]

A fresh array of this size is pickled out of band and kept, or written into a file without a name in the directory; a
number of each of its pages is read from where it was kept, and from the file, mapped. Milliseconds, best and median.
"""

import argparse
import functools
import mmap
import os
import statistics
import time

import numpy

from foresail import _channel, _keep, _wire


def timed(times, what, call):
    began = time.perf_counter()
    found = call()
    times.setdefault(what, []).append((time.perf_counter() - began) * 1000)
    return found


def pages(value):
    """A number of each page."""
    return int(value[::512].sum())


def hand_over(times, number, size, folder):
    """One hand-over each way."""
    keeper, array = _keep.Keeper(), numpy.full(size // 8, number)
    expected = pages(array)
    parts = timed(times, "pickle", functools.partial(_wire.dumps, array))
    del array
    stored = sum(memoryview(part).nbytes for part in parts)
    kept, _ = timed(times, "keep", lambda: keeper.keep(parts, stored))
    if timed(times, "read what was kept", lambda: pages(keeper.value(kept))) != expected:
        raise SystemExit("error: another array was read than was kept")
    file = timed(times, "write", lambda: _channel.written(folder, parts))
    mapping = mmap.mmap(file, stored, mmap.MAP_SHARED, mmap.PROT_READ)
    if timed(times, "read what was written", lambda: pages(_wire.loads(mapping))) != expected:
        raise SystemExit("error: another array was read than was written")
    os.close(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bytes", type=int, default=100_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dir", default=".")
    asked = parser.parse_args()
    times = {}
    for number in range(asked.rounds):
        hand_over(times, number, asked.bytes, asked.dir)
    for what, found in times.items():
        print(f"{what:22} {min(found):8.2f} ms best {statistics.median(found):8.2f} ms median")


if __name__ == "__main__":
    main()
