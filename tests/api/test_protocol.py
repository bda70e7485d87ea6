"""aiohttp's protocol, on a real socket."""

import asyncio
import gc
import logging
import socket

import pytest
from aiohttp import web

from schedulerd.api.connections.protocol import protocols

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def answer(_request):
    await asyncio.sleep(0)
    return web.Response()


@pytest.mark.parametrize("turns", range(6))
def test_a_connection_that_ends_as_its_request_comes_is_no_error(caplog, turns):
    wrong = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: wrong.append(context))
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            transport, protocol = await loop.connect_accepted_socket(protocols(web.Server(answer)), ours)
            await asyncio.sleep(0.01)  # it waits for a request
            if not turns:
                transport.abort()
            protocol.data_received(HEAD)
            for _ in range(turns - 1):
                await asyncio.sleep(0)
            transport.abort()
            await asyncio.sleep(0.01)
        del protocol, transport
        gc.collect()

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
    assert wrong == []
    assert caplog.records == []
