"""An output that is followed, on a real server with its gate: silence is no fault, not reading is."""

import asyncio
import socket
from pathlib import Path

import pytest
from aiohttp import web

from schedulerd.api.connections import limits, transport
from schedulerd.api.connections.limits import Gate
from schedulerd.api.streaming import Sender, follow
from schedulerd.core.clock import SystemClock
from schedulerd.core.models import Status
from schedulerd.engine.state import JobState, JobTable
from schedulerd.process.output import OutputFolder
from schedulerd.secrets.job_archive import JobArchive
from schedulerd.service.runs import Runs
from tests.support.builders import a_job, a_run

SILENCE_SECONDS = 0.5  # longer than the time that a request's head has here


@pytest.fixture
def place(tmp_path, store):
    """Runs on a store, with one that goes on and has written nothing yet."""
    table, folder, run = JobTable(), OutputFolder(str(tmp_path / "output")), a_run()
    table.states["job"] = JobState(a_job(), running={run.run_id: run})
    store.record([run]).result(10)
    folder.make(run.run_id)
    return (
        Runs(table, store, SystemClock(), folder, JobArchive(str(tmp_path / "keepsakes.json")), lambda: ()),
        table,
        folder,
        run,
    )


async def served(path, handler):
    """Serve a handler as the daemon does."""
    gates = []

    async def entered(request):
        gates[0].head_came(request.transport)
        return await handler(request)

    app = web.Application()
    app.router.add_get("/", entered)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    gates.append(Gate(runner.server))
    return runner, await asyncio.get_running_loop().create_unix_server(gates[0], str(path))


def test_a_run_that_is_silent_for_long_is_followed_to_its_end(place, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "HEAD_SECONDS", 0.1)
    runs, table, folder, run = place

    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await follow(runs, Sender(request, response), runs.reader(run, 0), run, False)
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
        runs._store.finish([a_run(run_id=run.run_id, status=Status.SUCCESS)]).result(10)
        rest = await reader.read()
        writer.close()
        server.close()
        await runner.cleanup()
        return first, rest

    assert asyncio.run(main()) == (b"at last", b"")


@pytest.mark.parametrize(
    ("shows_gaps", "rest"), [(True, b"\n[schedulerd: the run has erased its output]\nanew"), (False, b"")]
)
def test_a_follower_hears_that_the_run_has_erased_its_output(place, tmp_path, shows_gaps, rest):
    runs, table, folder, run = place
    path = Path(folder.path_of(run.run_id))
    path.write_bytes(b"at first, much")

    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await follow(runs, Sender(request, response), runs.reader(run, 0), run, shows_gaps)
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
        runs._store.finish([a_run(run_id=run.run_id, status=Status.SUCCESS)]).result(10)
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
