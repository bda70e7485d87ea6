"""The doors themselves: the Unix socket and the TCP listener, made safely, and the web server on them."""

from __future__ import annotations

import asyncio
import errno
import grp
import ipaddress
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from aiohttp import web

from ..config.config import ApiSettings
from ..core.clock import Clock
from ..core.errors import AlreadyRunningError, SchedulerdError, UnsafeError
from ..host.unix_sockets import peer_of, socket_identity
from ..service.service import Service
from .app import Api
from .auth import Peers, Tokens
from .callers import SocketCallers, TokenCallers
from .connections.acceptor import Doorway, Lobby
from .connections.limits import Gate
from .connections.protocol import protocols
from .routes import OPEN_ROUTES, ROUTES

log = logging.getLogger(__name__)

BACKLOG = 2048  # a connection that does not fit is tried again a second later; net.core.somaxconn may be lower
ACCEPTED_AT_ONCE = 2  # connections; some four times as many are open before the first is refused, out of the reserve
LONGEST_SOCKET_PATH = 107
CLOSE_SECONDS = 2.0
SETTLE_SECONDS = 1.0
_ELSEWHERE = "name a path in api.socket that only the daemon and root may write in"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


def bind_unix(settings: ApiSettings, state_dir: str) -> socket.socket:
    """Return a socket that listens: only its owner may connect, then its group, and everybody when there are peers.

    (Whoever connects is then known by the kernel's word, and answered as their role says.) The caller holds the lock of
    the path. Only a socket that nobody answers on is taken away. Raise AlreadyRunningError when somebody does,
    UnsafeError when something else is there.
    """
    path = settings.socket
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        why = f"its path is longer than the {LONGEST_SOCKET_PATH} bytes of unix(7)"
        raise SchedulerdError(
            f"the socket {path} cannot be made: {why}; name a shorter one in api.socket, or a shorter state_dir"
        )
    _remove_stale(path)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        server.bind(path)
    except OSError as error:
        server.close()
        raise SchedulerdError(f"the socket {path} cannot be made: {error.strerror or error}") from error
    finally:
        os.umask(before)
    try:
        _let_in(settings, state_dir)
    except UnsafeError:
        server.close()
        raise
    server.listen(BACKLOG)
    return server


def _let_in(settings: ApiSettings, state_dir: str) -> None:
    """Open the way to the socket for its group and for peers; what else is in the state directory stays private.

    Raise UnsafeError when the socket is none any more: somebody else may write in its folder.
    """
    path, folder = settings.socket, os.path.dirname(settings.socket)
    is_inside = os.path.realpath(folder) == os.path.realpath(state_dir)
    with _held(folder, folder, stat.S_ISDIR) as of_folder, _held(_in(of_folder, path), path, stat.S_ISSOCK) as its:
        try:
            group = grp.getgrnam(settings.socket_group).gr_gid
            for each, mode in ((its, 0o660), *(((of_folder, 0o710),) if is_inside else ())):
                found = os.stat(each)
                if (found.st_gid, stat.S_IMODE(found.st_mode)) != (group, mode):  # a held socket is so already
                    os.chown(each, -1, group)
                    os.chmod(each, mode)
        except KeyError:
            text = "no group may use the socket %s: there is no group %r (groupadd it, to let its members in)"
            log.info(text, path, settings.socket_group)
        except PermissionError:
            log.warning("the socket %s could not be given to the group %r", path, settings.socket_group)
        if settings.peers:
            _open_to_all(path, its, of_folder)


def _open_to_all(path: str, its: str, of_folder: str) -> None:
    """Let everybody connect, who is then asked for their role; the folder is opened to pass through, not to look."""
    try:
        os.chmod(its, 0o666)  # noqa: S103 - the role of each user is checked
        found = os.stat(of_folder)
        if found.st_uid == os.geteuid():
            os.chmod(of_folder, stat.S_IMODE(found.st_mode) | 0o011)  # noqa: S103 - to pass, not to list
    except PermissionError:
        log.warning("the socket %s could not be opened to api.peers: it is not the daemon's", path)


def _in(folder: str, path: str) -> str:
    return f"{folder}/{os.path.basename(path)}"


@contextmanager
def _held(where: str, path: str, is_right: Callable[[int], bool]) -> Iterator[str]:
    """Hold what is at `where`, and yield a name that leads to it and to nothing else, whoever renames or links meanwhile.

    A folder may be named by a link, a socket may not. Raise UnsafeError, which names `path`, when something else is there.
    """
    try:
        descriptor = os.open(where, os.O_PATH | os.O_CLOEXEC | (os.O_NOFOLLOW if is_right is stat.S_ISSOCK else 0))
    except OSError as error:
        raise UnsafeError(f"{path} was moved away while the socket is made ({error.strerror}): {_ELSEWHERE}") from error
    try:
        if not is_right(os.fstat(descriptor).st_mode):
            raise UnsafeError(f"{path} was replaced while the socket is made: {_ELSEWHERE}")
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _remove_stale(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise UnsafeError(f"{path} is there and is not a socket: move it away, or name another path in api.socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError as error:
            raise AlreadyRunningError(f"the socket {path} is in use: {error.strerror or error}") from error
        else:
            raise AlreadyRunningError(f"another process answers on {path}")


def bind_tcp(settings: ApiSettings) -> socket.socket | None:
    """Return a socket that listens where the settings say, or None when they name no address. Raise UnsafeError."""
    check_listen(settings)
    if settings.host is None:
        return None
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((settings.host, settings.port))
        server.listen(BACKLOG)
    except OSError as error:
        server.close()
        kind = AlreadyRunningError if error.errno == errno.EADDRINUSE else SchedulerdError
        why = error.strerror or str(error)
        raise kind(f"cannot listen on {settings.host}:{settings.port} (api.listen): {why}") from error
    return server


def check_listen(settings: ApiSettings) -> None:
    """Raise UnsafeError when the settings would send tokens over a network in the clear, and do not say so."""
    if settings.host is None or _is_loopback(settings.host) or settings.allow_plain_remote:
        return
    raise UnsafeError(
        f"api.listen: {settings.host} is not loopback, and without TLS tokens would cross the network in the clear: "
        "listen on 127.0.0.1 behind a proxy with TLS, or set api.allow_plain_remote: true"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Listeners:
    """The sockets that the daemon answers on: those that systemd holds for it, and those that it makes itself."""

    def __init__(self, settings: ApiSettings, state_dir: str, passed: list[socket.socket]) -> None:
        """Raise UnsafeError, AlreadyRunningError or SchedulerdError. The caller holds the lock of the socket's path."""
        if any(each.family != socket.AF_UNIX or each.type != socket.SOCK_STREAM for each in passed):
            raise UnsafeError("the service manager may pass stream sockets with a path only: TCP is api.listen")
        self.are_held = any(each.getsockname() == settings.socket for each in passed)
        self._settings, self._state_dir = settings, state_dir
        self._is_remade = False
        if self.are_held and os.path.lexists(settings.socket):
            _let_in(settings, state_dir)
        elif self.are_held:  # its path was removed: only the service manager can make that again
            passed = [*passed, self._make_again()]
        elif passed:
            log.warning("the service manager has the socket %s, and not that of api.socket, %s: both are answered",
                        passed[0].getsockname(), settings.socket)  # fmt: skip
        self.unix = [*passed, *([] if self.are_held else [bind_unix(settings, state_dir)])]
        self.tcp = bind_tcp(settings)
        self._identity = socket_identity(settings.socket)

    def _make_again(self) -> socket.socket:
        path = self._settings.socket
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        fresh = bind_unix(self._settings, self._state_dir)
        log.warning("the socket %s was removed: recreated", path)
        self._is_remade = True
        return fresh

    def restore(self) -> socket.socket | None:
        """Return a new socket when the daemon's was removed. Raise SchedulerdError or OSError when none can be made."""
        path = self._settings.socket
        found = socket_identity(path)
        if found == self._identity:
            return None
        fresh = None if found is not None and _is_own(path) else self._make_again()
        self._identity = socket_identity(path)
        return fresh

    def remove(self) -> None:
        """Take the socket away at the end, so that callers are told at once that nobody is there; not one that is held."""
        if not self.are_held or self._is_remade:
            with suppress(OSError):
                os.unlink(self._settings.socket)


def _is_own(path: str) -> bool:
    """Return whether this process listens at a path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            return False
        return peer_of(probe)[0] == os.getpid()


class Server:
    """Serves the API on sockets that are bound already; one application a door, since each knows its callers its own way."""

    def __init__(self) -> None:
        self._doors: list[tuple[asyncio.Server, web.AppRunner, Gate]] = []
        self._lobbies: list[Lobby] = []

    async def open(self, listener: socket.socket, api: Api) -> Any:
        """Answer on a listening socket, which is the server's from now on; return its address."""
        runner = web.AppRunner(api.build(), access_log=None, handle_signals=False)
        await runner.setup()
        assert runner.server is not None  # noqa: S101 - setup has just made it
        api.gate = Gate(protocols(runner.server), api.callers.look)
        # Not create_unix_server: from Python 3.13 on it takes the socket's path away at the end, which may not be ours.
        lobby = Lobby(api.gate.turn_of, api.gate)
        self._lobbies.append(lobby)
        doorway = Doorway(listener, lobby)
        server = await asyncio.get_running_loop().create_server(api.gate, sock=doorway, backlog=ACCEPTED_AT_ONCE)
        doorway.listen(BACKLOG)  # asyncio takes its one for both: as many it accepts before it looks at any
        self._doors.append((server, runner, api.gate))
        return doorway.getsockname()

    def retire(self, path: str) -> None:
        """Listen no more on the sockets that were at a path, since a new one is there; who is connected goes on."""
        for server, _, _ in self._doors:
            if any(listener.getsockname() == path for listener in server.sockets):
                server.close()

    async def close_doors(self) -> None:
        """Let nobody in any more; who came already is heard. On a socket that is held, the next daemon answers."""
        loop = asyncio.get_running_loop()
        for listener in (each for server, _, _ in self._doors for each in server.sockets):
            loop.remove_reader(listener.fileno())
        await asyncio.sleep(0)  # whom asyncio has accepted just now becomes a connection; after `close` it would drop them
        for server, _, _ in self._doors:
            server.close()
        for lobby in self._lobbies:
            lobby.close()
        for _, _, gate in self._doors:
            await gate.settle(SETTLE_SECONDS)

    async def close(self) -> None:
        """Close the doors; requests that are under way get a moment to end."""
        await self.close_doors()
        for _, runner, gate in self._doors:
            gate.close()
            if runner.server is not None:
                await runner.server.shutdown(CLOSE_SECONDS)
            await runner.cleanup()


def unix_api(service: Service, settings: ApiSettings, clock: Clock) -> Api:
    """Return the API for the Unix socket."""
    peers = Peers(settings.socket_group, settings.peers, clock)
    return Api(service, SocketCallers(peers), None, ROUTES, OPEN_ROUTES)


def tcp_api(service: Service, settings: ApiSettings, tokens: Tokens, clock: Clock) -> Api:
    """Return the API for TCP."""
    own = f"[{settings.host}]" if settings.host and ":" in settings.host else settings.host or ""
    hosts = LOOPBACK_NAMES | {own.lower()} | {name.lower() for name in settings.hosts}
    return Api(service, TokenCallers(tokens, clock, settings.trusted_proxy), hosts, ROUTES, OPEN_ROUTES)
