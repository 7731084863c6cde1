"""What stays in the process that made it: only memory that nobody else can change, read-only for who reads it."""

import gc
import os
import subprocess
import sys
import weakref

import pytest

from foresail import _keep, _wire

numpy = pytest.importorskip("numpy")

SIZE = 100_000
SHARED = numpy.ones(SIZE)
BIG = numpy.ones((1_000, 1_000))


class Cache:
    """Keeps what it returned."""

    def __init__(self):
        self.last = None

    def make(self):
        self.last = numpy.ones(SIZE)
        return self.last


def watched():
    """An array that others can get at through a weak reference."""
    array = numpy.ones(SIZE)
    watched.seen = weakref.ref(array)
    return array


def kept(make):
    """A keeper, and what it says of the result of a call, which nobody else has any more."""
    keeper = _keep.Keeper()
    parts = _wire.dumps(make())
    size = sum(memoryview(part).nbytes for part in parts)
    return keeper, keeper.keep(parts, size), b"".join(parts)


@pytest.mark.parametrize(
    ("make", "expect"),
    [
        (lambda: numpy.ones(SIZE), True),
        (lambda: ("text", {"a": numpy.zeros(SIZE, "int8"), "b": [numpy.ones((3, SIZE))]}), True),
        (lambda: numpy.asfortranarray(numpy.ones((300, 400))), True),
        (lambda: numpy.ones(SIZE).reshape(100, -1), True),
        (lambda: numpy.ones((1_000, 1_000))[::2, ::2], True),  # copied by the pickle
        (lambda: b"x" * SIZE, True),
        (lambda: numpy.linalg.qr(numpy.ones((1_000, 10))), True),
        (lambda: SHARED, False),
        (lambda: SHARED[1:], False),
        (lambda: (numpy.ones(SIZE), SHARED), False),
        (lambda: numpy.ones(SIZE)[: SIZE // 2], False),  # keeps twice its size
        (lambda: numpy.frombuffer(bytes(SIZE)), False),
        (lambda: BIG[:500], False),
        (Cache().make, False),
        (watched, False),
    ],
)
def test_only_what_nobody_else_can_change_is_kept(make, expect):
    _, found, _ = kept(make)
    assert (found is not None) == expect


def test_a_kept_value_is_read_where_it_lies_and_cannot_be_written_to():
    keeper, (number, _), _ = kept(lambda: {"array": numpy.arange(SIZE), "text": "x"})
    value, again = keeper.value(number), keeper.value(number)
    assert value["text"] == "x"
    assert value["array"].tolist() == list(range(SIZE))
    assert numpy.shares_memory(value["array"], again["array"])
    assert not value["array"].flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        value["array"].setflags(write=True)


def test_the_addresses_that_are_told_hold_the_stored_form():
    import ctypes

    keeper, (number, spans), stored = kept(lambda: (numpy.arange(SIZE), numpy.ones(77), "x" * 300))
    assert number in keeper.kept
    pairs = list(_keep._SPAN.iter_unpack(spans))
    assert b"".join(ctypes.string_at(at, length) for at, length in pairs) == stored


def test_what_is_released_is_forgotten_and_lives_on_where_it_is_read():
    keeper, (number, _), _ = kept(lambda: numpy.arange(SIZE))
    value = keeper.value(number)
    assert keeper.bytes > 8 * SIZE
    keeper.release([number, number, 77])
    gc.collect()
    assert (keeper.bytes, keeper.kept) == (0, {})
    assert int(value.sum()) == SIZE * (SIZE - 1) // 2
    with pytest.raises(KeyError):
        keeper.value(number)


def test_a_value_of_very_many_buffers_is_not_kept():
    _, found, _ = kept(lambda: [numpy.ones(10) for _ in range(_keep.SPANS_MAX + 1)])
    assert found is None


FREED = """
import resource
from foresail import _keep

def touch():
    for block in [bytearray(8 << 20) for _ in range(4)]:
        block[::4096] = bytes(len(block) // 4096)

_keep.hold_freed(64 << 20)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_that_was_freed_is_used_again_unless_the_user_says_otherwise():
    pages = 5 * (32 << 20) // 4096
    environment = {name: text for name, text in os.environ.items() if name not in _keep._MALLOC_VARIABLES}
    for own, expect in (({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)):
        command = [sys.executable, "-c", FREED]
        done = subprocess.run(command, env={**environment, **own}, capture_output=True, text=True, check=True)
        if not hasattr(_keep.ctypes.CDLL(None), "mallopt"):
            pytest.skip("another C library than that of GNU")
        assert (int(done.stdout) < pages // 10) == expect, (own, done.stdout)
