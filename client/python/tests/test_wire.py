"""The form in which values travel: what comes back, what is copied, what is refused."""

from __future__ import annotations

import dataclasses
import pickle
import struct
import sys
import threading
from typing import Any, Callable

import pytest

from foresail import _wire

numpy = pytest.importorskip("numpy")


@dataclasses.dataclass
class Point:
    """A value with a class of its own."""

    x: int
    label: str


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        -(1 << 80),
        1.5,
        "",
        "text",
        b"",
        b"bytes",
        bytearray(b"array"),
        [],
        {},
        (),
        set(),
        [1, [2, (3, {"four": [5, None]})]],
        {"a": Point(1, "one"), ("b", 2): {frozenset({1, 2})}},
        b"FSPY1\0\0\0 looks like a value",
    ],
    ids=repr,
)
def test_values_come_back_as_they_were(value: Any) -> None:
    back = _wire.loads(_wire.dumps_bytes(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (3, 5), (2, 0, 3), (64, 64)])
@pytest.mark.parametrize("dtype", ["u1", "f8", "c16", "?", "i2", "U3"])
def test_arrays_come_back_read_only(shape: "tuple[int, ...]", dtype: str) -> None:
    array = numpy.zeros(shape, dtype=dtype)
    back = _wire.loads(_wire.dumps_bytes(array))
    assert (back == array).all()
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    if back.size:
        assert not back.flags.writeable


@pytest.mark.parametrize(
    "change",
    [lambda a: a.T, lambda a: a[::2], lambda a: a[:, 1:], lambda a: numpy.asfortranarray(a), lambda a: a[::-1]],
)
def test_arrays_of_any_layout_come_back(change: Callable[[Any], Any]) -> None:
    array = change(numpy.arange(60.0).reshape(6, 10))
    assert (_wire.loads(_wire.dumps_bytes(array)) == array).all()


def test_a_read_only_array_and_the_same_array_twice() -> None:
    array = numpy.arange(10)
    array.flags.writeable = False
    first, second = _wire.loads(_wire.dumps_bytes((array, array)))
    assert first is second
    assert (first == array).all()


def test_every_buffer_begins_at_a_multiple_of_the_alignment() -> None:
    value = {n: numpy.arange(n, dtype="u1") for n in (0, 1, 63, 64, 65, 1000)}
    data = _wire.dumps_bytes(value)
    _, n, _ = struct.unpack_from("<8sII", data)
    assert n == len(value)
    lengths = struct.unpack_from(f"<{n + 1}Q", data, 16)
    at = 16 + 8 * (n + 1) + lengths[0]
    for size in lengths[1:]:
        at += -at % _wire.ALIGNMENT
        assert data[at : at + size] == bytes(range(256))[:size] or size == 1000
        at += size
    back = _wire.loads(data)
    assert all((back[n] == value[n]).all() for n in value)


def test_an_array_is_not_copied_when_it_is_read() -> None:
    data = bytearray(_wire.dumps_bytes(numpy.zeros(128_000, dtype="u1")))
    back = _wire.loads(data)
    data[-128_000:] = b"\7" * 128_000
    assert back[0] == 7


def test_an_array_is_not_copied_when_it_is_written() -> None:
    array = numpy.zeros(128_000)
    parts = _wire.dumps(array)
    assert any(numpy.shares_memory(numpy.frombuffer(part, dtype="u1"), array) for part in parts if len(part))


def test_what_is_no_value_is_bytes() -> None:
    assert _wire.loads(b"plain") == b"plain"
    assert _wire.loads(memoryview(b"")) == b""
    assert not _wire.is_value(_wire.MAGIC)


@pytest.mark.parametrize("kept", [24, 30, 100, 4000])
def test_a_value_that_is_cut_short_is_refused(kept: int) -> None:
    data = _wire.dumps_bytes([numpy.zeros(1000), "end"])
    with pytest.raises((ValueError, pickle.UnpicklingError, EOFError)):
        _wire.loads(data[:kept])


class Holder:
    """Something with a part that cannot be pickled."""

    def __init__(self) -> None:
        self.name = "holder"
        self.lock = threading.Lock()


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(_wire.Unpicklable) as told:
        _wire.dumps({"fine": 1, "broken": [1, Holder()]})
    assert "the value['broken'][1].lock is a `_thread.lock`" in str(told.value)


def test_what_only_this_process_knows_travels_by_value() -> None:
    pytest.importorskip("cloudpickle")
    assert _wire.loads(_wire.dumps_bytes(lambda x: x + 1))(2) == 3
    assert pickle.loads(_wire.dump_code(lambda x: x * 2))(4) == 8


class Lazy:
    """What the package would put in the place of an input."""

    def __init__(self, *pid: Any) -> None:
        self.pid = pid


def pid_of(value: Any) -> Any:
    return value.pid if isinstance(value, Lazy) else None


def test_inputs_stand_at_any_depth_of_the_arguments() -> None:
    args = (1, [Lazy(_wire.INPUT, 0), {"deep": (Lazy(_wire.INPUT, 1),)}], Point(Lazy(_wire.INPUT, 0), "p"))  # type: ignore[arg-type]
    data = _wire.dump_args(args, {"key": Lazy(_wire.INPUT, 1)}, pid_of)
    values, exists = ["zero", "one"], [True, True]
    found = _wire.load_args(data, lambda pid: _wire.find_in(values, exists, pid))
    assert found == ((1, ["zero", {"deep": ("one",)}], Point("zero", "p")), {"key": "one"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pid", "expect"),
    [
        ((_wire.INPUT, 1), None),
        ((_wire.GATHERED, [0, 1, 2]), [[1, 2], [3]]),
        ((_wire.GATHERED, []), []),
        ((_wire.CHUNKS, [2, 0]), [3, 1, 2]),
        ((_wire.CHUNKS, [1]), []),
    ],
)
def test_gathered_inputs_leave_out_those_that_do_not_exist(pid: Any, expect: Any) -> None:
    values, exists = [[1, 2], None, [3]], [True, False, True]
    data = _wire.dump_args((Lazy(*pid),), {}, pid_of)
    (found,), _ = _wire.load_args(data, lambda pid: _wire.find_in(values, exists, pid))
    assert found == expect


def test_an_unknown_kind_of_input_is_refused() -> None:
    with pytest.raises(pickle.UnpicklingError, match="no kind of input"):
        _wire.find_in([], [], ("foresail.other", 0))


def test_the_hash_of_code_is_its_sha256() -> None:
    assert _wire.code_hash(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


class Local:
    """Something that no other process can import, once it says that it is of the main program."""

    __module__ = "__main__"


def test_what_is_of_the_main_program_goes_by_value_to_other_processes(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "Local", Local, raising=False)
    by_name, by_value = (b"".join(dumps([Local()])) for dumps in (_wire.dumps, _wire.dumps_elsewhere))
    assert _wire.BY_VALUE not in by_name
    assert _wire.BY_VALUE in by_value
    assert type(_wire.loads(by_value)[0]).__name__ == "Local"
    # A text that looks like it changes nothing.
    assert _wire.loads(b"".join(_wire.dumps_elsewhere(["__main__", 3]))) == ["__main__", 3]


def test_bytecode_of_another_version_is_not_read():
    data = bytearray(_wire.dumps_bytes([lambda: 1]))
    assert _wire.loads(data)[0]() == 1
    assert bytes(data[12:16]) == bytes([sys.version_info[1], sys.version_info[0], 0, 0])
    data[12:16] = bytes([4, 3, 0, 0])
    with pytest.raises(_wire.OtherVersion, match=r"3\.4"):
        _wire.loads(data)
    # Data has none, so that every version reads it.
    assert bytes(_wire.dumps_bytes([1, 2])[12:16]) == bytes(4)
