"""Foresail's Python package beside Dask distributed, Ray, Lithops and concurrent.futures.

    python bench.py [--rows noop,gemm] [--rivals dask,ray] [--turns 3] [--limit 120] [-o table|json]

All engines have two worker processes with one thread each and run side by side, in turns: one turn of each, then the
next one, after a turn that only warms (it starts workers, imports, and Foresail measures). Shown are the medians.
Results are compared: all engines must have the same. A rival that is not installed is named and left out.
"""

import argparse
import importlib.util
import json
import math
import os
import signal
import sys
import tempfile

import processes
from rows import BY_NAME, ROWS
from table import TITLES, markdown

NEEDS = {"dask": "distributed", "dask-inf": "distributed", "ray": "ray", "lithops": "lithops"}
PACKAGES = {"distributed": "dask[distributed]"}
TOLERANCE = 1e-6


def picked(text, known, what):
    """The names of a list, checked; all where it is empty."""
    names = [name for name in text.replace(",", " ").split() if name] or list(known)
    if "dask" in names and what == "rival" and "dask-inf" not in names:
        names.insert(names.index("dask") + 1, "dask-inf")
    wrong = [name for name in names if name not in known]
    if wrong:
        sys.exit(f"error: there is no {what} `{wrong[0]}`\nhint: one of {', '.join(known)}")
    return names


def is_same(left, right):
    """Whether two results are equal, numbers but for the order in which they were added."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(is_same, left, right))
    if isinstance(left, float) or isinstance(right, float):
        return math.isclose(left, right, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return left == right


class Bench:
    """The engines and what was measured."""

    def __init__(self, names, folder, limit_s):
        self.folder, self.limit_s, self.starts = folder, limit_s, 0
        self.log_path = os.path.join(folder, "engines.log")
        self.log = open(self.log_path, "wb")
        self.engines = dict.fromkeys(names)

    def engine(self, name):
        """The engine, started where it does not run."""
        if self.engines[name] is None:
            self.starts += 1
            self.engines[name] = processes.Engine(name, os.path.join(self.folder, f"e{self.starts}"), self.log)
        return self.engines[name]

    def stop(self, name):
        engine, self.engines[name] = self.engines[name], None
        if engine is not None:
            engine.close()

    def measure(self, row, turns):
        """Seconds per engine, or what is said instead of them."""
        found = {name: {"seconds": []} for name in self.engines}
        for turn in range(turns + 1):
            wanted = None
            for name, of in found.items():
                if "said" in of:
                    continue
                try:
                    answer = self.engine(name).ask(row, turn, self.limit_s)
                except processes.Failed as error:
                    of["seconds"], of["said"] = [], str(error)
                    tell(f"{row}: {TITLES[name]}: {error}")
                    self.stop(name)
                    continue
                if "refused" in answer:
                    of["said"] = "-"
                    continue
                if wanted is None:
                    wanted = answer["results"]
                elif not is_same(wanted, answer["results"]):
                    sys.exit(f"error: {row}: {TITLES[name]} has another result than the engines before it")
                tell(f"{row}: {TITLES[name]}: {'warm-up' if turn == 0 else f'turn {turn}'}: {answer['seconds']:.4f} s")
                if turn:
                    of["seconds"].append(answer["seconds"])
        return found

    def close(self):
        for name in self.engines:
            self.stop(name)
        self.log.close()


def tell(line):
    print(line, file=sys.stderr, flush=True)


def installed(names):
    """Those of the engines that can be started here; the others are named."""
    found = []
    for name in names:
        module = NEEDS.get(name)
        if module is None or importlib.util.find_spec(module) is not None:
            found.append(name)
        else:
            tell(
                f"{TITLES[name]} is left out: it is not installed\n  hint: pip install '{PACKAGES.get(module, module)}'"
            )
    return found


def interrupted(number, frame):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="", help="which rows: " + ", ".join(row.name for row in ROWS))
    parser.add_argument("--rivals", default="", help="which rivals: " + ", ".join(list(TITLES)[1:]))
    parser.add_argument("--turns", type=int, default=3, help="turns of which the median is shown")
    parser.add_argument("--limit", type=float, default=120.0, help="longest time of one turn, in seconds")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    rows = picked(arguments.rows, BY_NAME, "row")
    rivals = picked(arguments.rivals, list(TITLES)[1:], "rival")
    names = installed(["foresail", *rivals])
    processes.adopt_orphans()
    signal.signal(signal.SIGTERM, interrupted)
    measured = {}
    # Not in the directory of the user's session, and with a short path: Ray has sockets in it.
    with tempfile.TemporaryDirectory(prefix="fsb", ignore_cleanup_errors=True) as folder:
        bench = Bench(names, folder, arguments.limit)
        try:
            for row in rows:
                measured[row] = bench.measure(row, arguments.turns)
        except KeyboardInterrupt:
            tell("interrupted")
            bench.engines = {}
            sys.exit(130)
        except processes.Failed as error:
            with open(bench.log_path, encoding="utf-8", errors="replace") as log:
                tell(log.read()[-4_000:])
            sys.exit(f"error: an engine did not start: {error}")
        finally:
            bench.close()
            processes.end_everything()
    print(json.dumps(measured, indent=2) if arguments.output == "json" else markdown(names, measured))


if __name__ == "__main__":
    main()
