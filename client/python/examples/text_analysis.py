"""Counts words in files, part by part, and merges the counts: a map and a reduction by a tree.

    python examples/text_analysis.py FOLDER [--parts 8]
"""

from __future__ import annotations

import argparse
import collections
import pathlib
from typing import Counter, List

import foresail


@foresail.task
def count(files: List[str]) -> Counter[str]:
    """The words of some files."""
    words: Counter[str] = collections.Counter()
    for name in files:
        words.update(pathlib.Path(name).read_text(errors="replace").lower().split())
    return words


@foresail.task
def merge(counts: List[Counter[str]]) -> Counter[str]:
    """The sum of some counts."""
    return sum(counts, collections.Counter())


def top_words(folder: str, parts: int = 8, top: int = 10) -> "foresail.Value[List[str]]":
    """The most frequent words of the text files of a folder, lazily."""
    kinds = {".txt", ".py", ".md", ".rs"}
    files = sorted(str(path) for path in pathlib.Path(folder).rglob("*") if path.suffix in kinds)
    level = [count(files[part::parts]) for part in range(parts)]
    while len(level) > 1:
        level = [merge(level[at : at + 4]) for at in range(0, len(level), 4)]
    return most_common(level[0], top)


@foresail.task
def most_common(words: Counter[str], top: int) -> List[str]:
    """The most frequent words."""
    return [word for word, _ in words.most_common(top)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--parts", type=int, default=8)
    arguments = parser.parse_args()
    for _ in range(2):
        # The second run is planned with what the first one measured.
        plan = top_words(arguments.folder, arguments.parts).plan()
        print(plan)
        run = plan.submit()
        print(run.result())
        print(f"took {run.actual['makespan_ms']:.0f} ms, predicted were {plan.predicted['makespan_ms']:.0f} ms")
