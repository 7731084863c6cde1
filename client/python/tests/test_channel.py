"""Frames between a worker and its runner: whole, in order, each with the descriptors that came with it."""

import os
import socket
import struct
import threading

import pytest

from foresail import _channel


def frame(body):
    return struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("last", [b"last", b"x" * 200_000])
def test_frames_that_arrive_together_are_taken_apart_with_their_descriptors(last):
    ours, theirs = socket.socketpair()
    channel = _channel.Channel(theirs)
    with ours, theirs, open(os.devnull, "rb") as null:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", null.fileno()))]
        ours.sendall(frame(b"first") + frame(b"") + frame(b"third")[:6])
        ours.sendmsg([frame(b"third")[6:] + frame(b"with descriptor")], rights)
        found = []
        for _ in range(4):
            got = channel.receive()
            found.append((bytes(got.body), len(got.descriptors)))
            got.close()
        assert found == [(b"first", 0), (b"", 0), (b"third", 0), (b"with descriptor", 1)]
        sending = threading.Thread(target=ours.sendall, args=(frame(last),))
        sending.start()
        assert bytes(channel.receive().body) == last
        sending.join()
