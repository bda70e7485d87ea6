"""The doors when they are closed: whoever was let in is answered, everybody else waits for the next daemon."""

import asyncio
import socket

import pytest
from aiohttp import web

from schedulerd.api.auth import SocketAuthenticator
from schedulerd.api.connections.limits import ConnectionLimits
from schedulerd.api.peer_roles import PeerRoles
from schedulerd.api.server import Server
from schedulerd.core.clock import SystemClock


class Api:
    """One path, whose requests are reported to the limits as by the real API."""

    def __init__(self):
        self.limits = ConnectionLimits(SocketAuthenticator(PeerRoles("schedulerd", (), SystemClock())).classify)

    def build(self):
        app = web.Application()
        app.router.add_get("/", self.answer)
        return app

    async def answer(self, request):
        self.limits.on_head(request.transport)
        try:
            return web.Response(text="here")
        finally:
            self.limits.on_response(request.transport)


@pytest.mark.parametrize("steps", range(8))
def test_nobody_is_dropped_at_whatever_step_of_the_loop_the_doors_close(tmp_path, steps):
    async def call_and_close():
        server = Server()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(tmp_path / "socket"))
        listener.listen(8)
        listener.setblocking(False)
        with listener.dup() as held, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            await server.open(listener, Api())
            caller.connect(str(tmp_path / "socket"))
            caller.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            caller.setblocking(False)
            for _ in range(steps):
                await asyncio.sleep(0)
            await server.stop_listening()
            try:
                held.accept()[0].close()  # as the next daemon would
            except BlockingIOError:
                answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(caller, 100), 10)
                assert answer.startswith(b"HTTP/1.1 200")
        await server.close()

    asyncio.run(call_and_close())
