"""Bounds on connections, on a real socket."""

import asyncio

import pytest

from schedulerd.api.connections import admission, guard
from schedulerd.api.connections.guard import guarded
from schedulerd.api.connections.limits import ConnectionLimits

HEAD = b"GET / HTTP/1.1\r\n\r\n"


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def serve(path):
    limits = ConnectionLimits()
    return limits, await asyncio.get_running_loop().create_unix_server(guarded(limits, Echo), path)


async def lifetime(path, say=b""):
    """Return what a connection that says `say` and then nothing hears until it is closed."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(say)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def lifetime_of_one(reader):
    """Return the first byte that is heard, or nothing when the connection is refused."""
    try:
        return await reader.read(1)
    except ConnectionResetError:
        return b""


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(guard, "HEAD_SECONDS", 0.2)


def test_who_says_nothing_or_half_a_head_is_closed(tmp_path, quick):
    async def main():
        _limits, server = await serve(str(tmp_path / "s"))
        heard = [await lifetime(str(tmp_path / "s"), say) for say in (b"", b"GET / HT")]
        server.close()
        return heard

    assert asyncio.run(main()) == [b"", b""]


def test_after_a_head_the_handler_has_its_time(tmp_path, quick):
    async def main():
        limits, server = await serve(str(tmp_path / "s"))
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        (transport,) = limits._connections
        limits.on_head(transport)
        writer.write(b"b")  # a body, while the request is under way
        assert await reader.read(1) == b"b"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.5)
        writer.write(b"GET")  # the next head begins, which may wait for the answer, and does not go on
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.5)
        limits.on_response(transport)
        assert await reader.read() == b""
        writer.close()
        server.close()

    asyncio.run(main())


def test_connections_are_counted_and_one_too_many_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(admission, "FEWEST", 0)
    monkeypatch.setattr(admission, "MOST_STRANGERS", 3)

    async def main():
        _limits, server = await serve(str(tmp_path / "s"))
        held = []
        for _ in range(3):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(HEAD)
            await reader.read(1)
            held.append(writer)
        assert await lifetime(str(tmp_path / "s"), HEAD) == b""
        held.pop().close()
        heard = b""
        for _ in range(100):  # the door hears of the end a moment later
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(HEAD)
            heard = await lifetime_of_one(reader)
            if heard:
                break
            writer.close()
        assert heard == HEAD[:1]
        for each in (*held, writer):
            each.close()
        server.close()

    asyncio.run(main())
