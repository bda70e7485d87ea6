"""Messages for a pipe that nobody reads, or reads slowly."""

import fcntl
import os

import pytest

from schedulerd.host.nonblocking import NonBlockingWriter, to_descriptor

F_SETPIPE_SZ = 1031


@pytest.fixture
def pipe():
    ends = os.pipe()
    fcntl.fcntl(ends[1], F_SETPIPE_SZ, 4096)
    yield ends
    for end in ends:
        os.close(end)


def to(writer, most=100_000):
    return NonBlockingWriter(to_descriptor(writer), lambda lost: b"%d lost\n" % lost, most)


def read_all(reader, outlet):
    """Read until nothing waits any more."""
    found = b""
    while outlet.kept or outlet.lost:
        found += os.read(reader, 65536)
        outlet.flush()
    return found + os.read(reader, 65536)


def test_what_a_full_pipe_does_not_accept_is_written_later_in_order(pipe):
    reader, writer = pipe
    outlet = to(writer)
    lines = [b"message %d\n" % number for number in range(2000)]
    for line in lines:
        outlet.put(line)

    assert read_all(reader, outlet) == b"".join(lines)


def test_messages_beyond_the_limit_are_counted_and_reported_in_their_place(pipe):
    reader, writer = pipe
    outlet = to(writer, most=10_000)
    for number in range(5000):
        outlet.put(b"message %d\n" % number)
    *kept, last = read_all(reader, outlet).splitlines()

    assert kept == [b"message %d" % number for number in range(len(kept))]
    assert last == b"%d lost" % (5000 - len(kept))


def test_a_message_larger_than_the_pipe_is_not_waited_for(pipe):
    reader, writer = pipe
    outlet = to(writer)
    outlet.put(b"x" * 50_000 + b"\n")
    outlet.put(b"y\n")

    assert read_all(reader, outlet) == b"x" * 50_000 + b"\ny\n"


def test_messages_for_a_closed_reader_are_discarded():
    reader, writer = os.pipe()
    outlet = to(writer)
    os.close(reader)
    for _ in range(3):
        outlet.put(b"message\n")
    os.close(writer)

    assert (outlet.kept, outlet.lost) == (0, 0)
