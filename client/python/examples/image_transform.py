"""Turns, blurs and shrinks real photographs, each by a task of its own: needs scikit-learn, which brings them.

    python examples/image_transform.py
"""

from __future__ import annotations

from typing import Any, Dict, List

import foresail


@foresail.task
def names() -> List[str]:
    """The photographs that there are."""
    return ["china.jpg", "flower.jpg"]


@foresail.task
def photograph(name: str) -> Any:
    """One photograph, as an array of bytes: rows, columns, colours."""
    from sklearn.datasets import load_sample_image

    return load_sample_image(name)


@foresail.task
def transform(image: Any, size: int) -> Any:
    """Turned by a quarter, blurred by a box, and every `size`-th point of it."""
    import numpy

    turned = numpy.rot90(image).astype("float32")
    blurred = sum(numpy.roll(turned, shift, axis) for axis in (0, 1) for shift in (-1, 0, 1)) / 6
    return blurred[::size, ::size].astype("uint8")


@foresail.task
def report(images: List[Any]) -> Dict[str, Any]:
    """What came out."""
    return {"shapes": [image.shape for image in images], "means": [float(image.mean()) for image in images]}


if __name__ == "__main__":
    pictures = photograph.map(names.function())
    print(report([transform(picture, size) for picture in pictures for size in (2, 4)]).compute())
