"""What passes between the runner and its worker: frames over a socket, and files without a name beside them.

A frame is its length (u32, little-endian) and a body; descriptors come along with its first bytes.
"""

from __future__ import annotations

import os
import socket
import struct
from array import array
from typing import Any, List, Sequence, Tuple

FRAME_BYTES = 64 << 10
"""Size of the buffer that frames are received in; a larger frame gets one of its own."""
DESCRIPTORS_MAX = 253
"""Most descriptors in one message (SCM_MAX_FD of Linux)."""
IOV_MAX = 1024

_LENGTH = struct.Struct("<I")
_ANCILLARY = socket.CMSG_SPACE(DESCRIPTORS_MAX * 4)
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Frame:
    """A frame as received: its body, and the descriptors that came along."""

    __slots__ = ("body", "descriptors")

    def __init__(self, body: memoryview, descriptors: "List[int]") -> None:
        self.body, self.descriptors = body, descriptors

    def close(self) -> None:
        """Closes the descriptors; what is mapped stays so."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []


class Channel:
    """The socket of the worker."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray(FRAME_BYTES)
        self.view = memoryview(self.buffer)
        # Of the next frame: where its first bytes lie in the buffer, and descriptors that came with them.
        self.rest = (0, 0)
        self.early: "List[int]" = []

    def receive(self) -> Frame:
        """The next frame; its body is good until the next one. Ends the process when the worker is gone."""
        view, descriptors = self.view, self.early
        first, have = self.rest
        have -= first
        if have:
            view[:have] = bytes(view[first : first + have])
        while have < 4:
            have += self._more(view[have:], descriptors)
        (length,) = _LENGTH.unpack_from(view)
        end = 4 + length
        if end > len(view):
            large = memoryview(bytearray(end))
            large[:have] = view[:have]
            view = large
        while have < end:
            have += self._more(view[have:end], descriptors)
        self.rest, self.early = (end, have), []
        if have > end:
            # Descriptors come with the last bytes that are received with them.
            self.early, descriptors = descriptors, []
        return Frame(view[4:end], descriptors)

    def _more(self, view: memoryview, descriptors: "List[int]") -> int:
        got, ancillary, _, _ = self.sock.recvmsg_into([view], _ANCILLARY, _CLOEXEC)
        if ancillary:
            descriptors += _descriptors(ancillary)
        if not got:
            os._exit(0)
        return got

    def send(self, parts: "List[Any]", descriptors: "Sequence[int]" = ()) -> None:
        """Sends a frame in parts."""
        length = sum(map(size_of, parts))
        if not descriptors and length <= FRAME_BYTES:
            self.sock.sendall(_LENGTH.pack(length) + b"".join(parts))
            return
        first = _LENGTH.pack(length)
        if descriptors:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))]
            self.sock.sendmsg([first], rights)
        else:
            self.sock.sendall(first)
        for part in parts:
            self.sock.sendall(part)


def size_of(part: Any) -> int:
    """Bytes of a part."""
    return len(part) if type(part) is bytes else memoryview(part).nbytes


def _descriptors(ancillary: "List[Tuple[int, int, bytes]]") -> "List[int]":
    found = array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def written(place: str, parts: "List[Any]") -> int:
    """A new file with this content: without a name in the directory `place`, where that can be, else in memory."""
    if place:
        descriptor = -1
        try:
            descriptor = os.open(place, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
            write_all(descriptor, parts)
            return descriptor
        except OSError:  # the file system has no such files, or no room: there may be room in memory
            if descriptor >= 0:
                os.close(descriptor)
    descriptor = memory_file()
    try:
        write_all(descriptor, parts)
    except OSError as error:
        os.close(descriptor)
        raise MemoryError(f"no room for the result: {error}") from None
    return descriptor


def memory_file() -> int:
    """A new file in memory; some interpreters are built without `os.memfd_create`."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("foresail-output")
    try:
        import ctypes

        descriptor = int(ctypes.CDLL(None).memfd_create(b"foresail-output", 1))
        if descriptor >= 0:
            return descriptor
    except (ImportError, AttributeError, OSError):
        pass
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def write_all(descriptor: int, parts: "List[Any]") -> None:
    """Writes the parts one after the other, copied once, by the kernel."""
    views = [memoryview(part) for part in parts if len(part)]
    first = 0
    while first < len(views):
        written = os.writev(descriptor, views[first : first + IOV_MAX])
        while first < len(views) and written >= views[first].nbytes:
            written -= views[first].nbytes
            first += 1
        if written:
            views[first] = views[first][written:]
