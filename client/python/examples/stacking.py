"""Stacks exposures of one sky as a mosaic pipeline does: project each, match backgrounds, take the median.

    python examples/stacking.py [--exposures 6]
"""

from __future__ import annotations

import argparse
from typing import Any, List

import foresail


@foresail.task
def project(number: int, size: int) -> Any:
    """One exposure on the common grid: stars, a background of its own, noise."""
    import numpy

    stars = numpy.zeros((size, size))
    places = numpy.random.default_rng(0).integers(0, size, (40, 2))
    stars[places[:, 0], places[:, 1]] = 100.0
    noise = numpy.random.default_rng(number + 1)
    return stars + noise.normal(size=(size, size)) + noise.uniform(5.0, 20.0)


@foresail.task
def level(image: Any) -> Any:
    """The exposure without its background."""
    import numpy

    return image - numpy.median(image)


@foresail.task
def stack(images: List[Any]) -> Any:
    """The median of the exposures, point by point."""
    import numpy

    return numpy.median(numpy.stack(images), axis=0)


def mosaic(exposures: int, size: int = 256) -> "foresail.Value[Any]":
    """The stacked image, lazily."""
    return stack(level.map([project(number, size) for number in range(exposures)]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--exposures", type=int, default=6)
    image = mosaic(parser.parse_args().exposures).compute()
    print(f"brightest {image.max():.1f}, deviation of the background {image[image < 50].std():.2f}")
