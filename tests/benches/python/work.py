"""The functions of the rows: the same ones for every engine, importable by its workers.

Arguments are plain values, results of other calls, never lists of results: not every engine looks into lists.
"""

import collections
import re
import time


def noop(number):
    return number


def add(sleep_ms, left, right):
    if sleep_ms:
        time.sleep(sleep_ms / 1000)
    return left + right


# Matrices.


def block(seed, rows, columns):
    import numpy

    return numpy.random.default_rng(seed).random((rows, columns))


def multiply(left, right):
    return left @ right


def total(first, *others):
    result = first + others[0] if others else first.copy()
    for other in others[1:]:
        result += other
    return result


def norm(matrix):
    return float((matrix * matrix).sum())


def r_of(*blocks):
    """The R factor of blocks that stand on one another, with a diagonal that is not negative."""
    import numpy

    r = numpy.linalg.qr(numpy.vstack(blocks) if len(blocks) > 1 else blocks[0], mode="r")
    return r * numpy.where(numpy.diag(r) < 0, -1.0, 1.0)[:, None]


def qr(matrix):
    import numpy

    return tuple(numpy.linalg.qr(matrix))


def first(pair):
    return pair[0]


def second(pair):
    return pair[1]


def svd_of_r(*blocks):
    """Q of stacked R factors times U of its R, and the singular values: Q * U' is U of the whole."""
    import numpy

    q, r = numpy.linalg.qr(numpy.vstack(blocks))
    u, values, _ = numpy.linalg.svd(r, full_matrices=False)
    return q @ u, values


def left_vectors(number, q, small):
    """The rows of U that belong to one block; their signs are left aside."""
    columns = q.shape[1]
    return abs(q @ small[0][number * columns : (number + 1) * columns])


def values_of(small):
    return [float(value) for value in small[1]]


# A picture in tiles.


def photograph(width, height):
    """A real photograph, repeated up to this size."""
    import numpy
    from sklearn.datasets import load_sample_image

    picture = load_sample_image("china.jpg")
    rows, columns = -(-height // len(picture)), -(-width // len(picture[0]))
    return numpy.tile(picture, (rows, columns, 1))[:height, :width]


def get(picture, row, column, tiles):
    rows, columns = len(picture) // tiles, len(picture[0]) // tiles
    return picture[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns].copy()


def resize(tile):
    half = tile[: len(tile) // 2 * 2, : len(tile[0]) // 2 * 2].astype("float32")
    return ((half[::2, ::2] + half[1::2, ::2] + half[::2, 1::2] + half[1::2, 1::2]) / 4).astype("uint8")


def _box(tile, size):
    import numpy

    found = tile.astype("float32")
    for axis in (0, 1):
        found = sum(numpy.roll(found, shift, axis) for shift in range(-size, size + 1)) / (2 * size + 1)
    return found


def blur(tile):
    return _box(tile, 2).astype("uint8")


def normalise(tile):
    low, high = int(tile.min()), int(tile.max())
    return ((tile.astype("float32") - low) * (255 / max(1, high - low))).astype("uint8")


def sepia(tile):
    import numpy

    tones = numpy.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]], "float32")
    return (tile.astype("float32") @ tones.T).clip(0, 255).astype("uint8")


def edges(tile):
    return abs(tile.astype("float32") - _box(tile, 1)).clip(0, 255).astype("uint8")


def sharpen(tile):
    tile = tile.astype("float32")
    return (tile + 1.5 * (tile - _box(tile, 2))).clip(0, 255).astype("uint8")


def combine(sharp, edge):
    return sharp // 2 + edge // 2


def merge_tiles(tiles, *parts):
    import numpy

    rows = [numpy.hstack(parts[at : at + tiles]) for at in range(0, len(parts), tiles)]
    whole = numpy.vstack(rows)
    return list(whole.shape), int(whole.astype("int64").sum())


# A book.

_WORDS = re.compile(r"[a-z]+")


def book(times):
    """A real text: the reference of Python that comes with it, so many times."""
    import pydoc_data.topics

    topics = pydoc_data.topics.topics
    return "\n\n".join(topics[name] for name in sorted(topics)) * times


def count(times, part, parts):
    text = book(times)
    each = -(-len(text) // parts)
    return collections.Counter(_WORDS.findall(text[part * each : (part + 1) * each].lower()))


def merge_counts(*counts):
    words = collections.Counter()
    for some in counts:
        words.update(some)
    return words


def segmentation(times, parts):
    lines = book(times).split("\n")
    each = -(-len(lines) // parts)
    return ["\n".join(lines[at : at + each]) for at in range(0, len(lines), each)]


def statistics(words):
    return {"words": sum(words.values()), "distinct": len(words)}


def segment(segments, part):
    words = _WORDS.findall(segments[part].lower())
    pairs = collections.Counter(zip(words, words[1:]))
    return {"words": len(words), "letters": sum(map(len, words)), "pairs": pairs.most_common(50)}


def overall(*segments):
    pairs = collections.Counter()
    for found in segments:
        pairs.update(dict(found["pairs"]))
    return {
        "words": sum(found["words"] for found in segments),
        "letters": sum(found["letters"] for found in segments),
        "pairs": pairs.most_common(50),
    }


def longest(words):
    return sorted(words, key=lambda word: (-len(word), word))[:10]


def report(facts, whole, top, long):
    return [facts["words"], facts["distinct"], whole["words"], whole["letters"], top[0][0], long[0]]


def most_common(words):
    return sorted(words.items(), key=lambda pair: (-pair[1], pair[0]))[:10]


# A hand-over.


def produce(turn, size):
    """An array of this many bytes, and when it was there."""
    import numpy

    array = numpy.full(size // 8, turn, "int64")
    return time.time_ns(), array


def consume(made):
    """Seconds from the end of the code that made the array until a number of each of its pages was read here."""
    ended, array = made
    pages = int(array[::512].sum())
    return (time.time_ns() - ended) / 1e9, pages / len(array[::512])
