"""An output that is followed, on a real server with its gate: silence is no fault, not reading is."""

import asyncio
import socket
from pathlib import Path

import pytest
from aiohttp import web

from schedulerd.api.connections import guard, transport
from schedulerd.api.connections.guard import guarded
from schedulerd.api.connections.limits import ConnectionLimits
from schedulerd.api.streaming import Sender, follow
from schedulerd.core.models import Status
from schedulerd.engine.state import JobState, JobTable
from schedulerd.process.output import OutputFolder
from schedulerd.service.outputs import RunOutput
from schedulerd.service.run_lookup import RunLookup
from tests.support.builders import a_job, a_run

SILENCE_SECONDS = 0.5  # longer than the time that a request's head has here


@pytest.fixture
def place(tmp_path, store):
    """The output of a run that is running and has written nothing yet."""
    table, folder, run = JobTable(), OutputFolder(str(tmp_path / "output")), a_run()
    table.states["job"] = JobState(a_job(), running={run.run_id: run})
    store.record([run]).result(10)
    folder.make(run.run_id)
    return RunOutput(run, RunLookup(table, store), folder, lambda _run: ()), table, folder, run


async def served(path, handler):
    """Serve a handler as the daemon does."""
    limits = ConnectionLimits()

    async def entered(request):
        limits.on_head(request.transport)
        return await handler(request)

    app = web.Application()
    app.router.add_get("/", entered)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    return runner, await asyncio.get_running_loop().create_unix_server(guarded(limits, runner.server), str(path))


def test_a_run_that_is_silent_for_long_is_followed_to_its_end(place, store, tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "HEAD_SECONDS", 0.1)
    output, table, folder, run = place

    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await follow(Sender(request, response), output, output.reader(0), False)
        await response.write_eof()
        return response

    async def main():
        runner, server = await served(tmp_path / "s", handler)
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(b"GET / HTTP/1.0\r\n\r\n")  # a proxy's version, without chunks
        await reader.readuntil(b"\r\n\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), SILENCE_SECONDS)
        await asyncio.to_thread(Path(folder.path_of(run.run_id)).write_bytes, b"at last")
        first = await reader.read(7)
        del table.states["job"].running[run.run_id]  # out of sight, but not over: it may wait elsewhere
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), SILENCE_SECONDS)
        store.finish([a_run(run_id=run.run_id, status=Status.SUCCESS)]).result(10)
        rest = await reader.read()
        writer.close()
        server.close()
        await runner.cleanup()
        return first, rest

    assert asyncio.run(main()) == (b"at last", b"")


@pytest.mark.parametrize(
    ("shows_gaps", "rest"), [(True, b"\n[schedulerd: the run has erased its output]\nanew"), (False, b"")]
)
def test_a_follower_hears_that_the_run_has_erased_its_output(place, store, tmp_path, shows_gaps, rest):
    output, table, folder, run = place
    path = Path(folder.path_of(run.run_id))
    path.write_bytes(b"at first, much")

    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await follow(Sender(request, response), output, output.reader(0), shows_gaps)
        await response.write_eof()
        return response

    async def main():
        runner, server = await served(tmp_path / "s", handler)
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(14) == b"at first, much"
        await asyncio.to_thread(path.write_bytes, b"anew")
        said = await reader.readexactly(len(rest))
        del table.states["job"].running[run.run_id]
        store.finish([a_run(run_id=run.run_id, status=Status.SUCCESS)]).result(10)
        said += await reader.read()
        writer.close()
        server.close()
        await runner.cleanup()
        return said

    assert asyncio.run(main()) == rest


def test_a_caller_who_takes_nothing_is_dropped_and_one_who_is_slow_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "STALL_SECONDS", 0.3)
    ends = []

    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        sender = Sender(request, response)
        try:
            for _ in range(16):
                await sender.send(b"x" * 256 * 1024)
            ends.append("all")
        except (ConnectionError, asyncio.CancelledError):
            ends.append("cut")
            raise
        return response

    async def main():
        runner, server = await served(tmp_path / "s", handler)
        loop = asyncio.get_running_loop()
        for takes in (False, True):
            with socket.socket(socket.AF_UNIX) as client:
                client.setblocking(False)
                await loop.sock_connect(client, str(tmp_path / "s"))
                await loop.sock_sendall(client, b"GET / HTTP/1.0\r\n\r\n")
                before = len(ends)
                while len(ends) == before:
                    if takes:
                        await asyncio.wait_for(loop.sock_recv(client, 512 * 1024), 5)
                    await asyncio.sleep(0.01)
        server.close()
        await runner.cleanup()

    asyncio.run(main())
    assert ends == ["cut", "all"]
