"""Accepts connections, and looks at who comes before anything is made for them: to turn a stranger away costs little.

A stranger for whom another one of their peer would have to go so soon that both were hardly heard is not let in: one who has
not said anything waits in the lobby, until they speak or others push them out.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from .admission import Turn

MOST_LOOKS = 128  # at those who come, in one turn of the loop: root may be behind 2,000 others, and a look is cheap
MOST_WAITING = 128  # in the lobby
LOBBY_SECONDS = 1.0
POLL_SECONDS = 0.003
PEEK_BYTES = 4096


class Doorway(socket.socket):
    """A listening socket that only those come through who are let in; it takes the place of `listener`."""

    def __init__(self, listener: socket.socket, lobby: Lobby) -> None:
        super().__init__(listener.family, listener.type, listener.proto, fileno=listener.detach())
        self._lobby = lobby

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next one who is let in. Raise BlockingIOError when there is none now, or OSError as accept(2) does."""
        for _ in range(MOST_LOOKS):
            connection, address = super().accept()
            if self._lobby.sees(connection):
                return connection, address
        raise BlockingIOError("others have their turn now")


class Lobby:
    """Where strangers wait who have not said anything yet, while there is a crowd."""

    def __init__(
        self,
        look: Callable[[socket.socket, Callable[[socket.socket], bool]], Turn],
        protocol: Callable[[], asyncio.Protocol],
    ) -> None:
        """`look` says what is done with a connection, given what tells whether a whole head has come on it."""
        self._look = look
        self._protocol = protocol
        self._waiting: deque[tuple[float, socket.socket]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._entering: set[asyncio.Task[Any]] = set()

    def sees(self, connection: socket.socket) -> bool:
        """Return whether a connection is to be let in by who asks; else it comes in aside, waits here, or is closed."""
        turn = self._look(connection, _speaks)
        if turn is Turn.IN:
            return True
        if turn is Turn.ASIDE:
            self._let_in(asyncio.get_running_loop(), connection)
            return False
        if turn is Turn.OUT:
            connection.close()
            return False
        self._waiting.append((asyncio.get_running_loop().time() + LOBBY_SECONDS, connection))
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()[1].close()
        self._look_later()
        return False

    def close(self) -> None:
        """Send all away."""
        while self._waiting:
            self._waiting.popleft()[1].close()

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(POLL_SECONDS, self._look_again)

    def _look_again(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        now, waiting, self._waiting = loop.time(), self._waiting, deque()
        poll = select.poll()
        for _, connection in waiting:
            poll.register(connection, select.POLLIN)
        readable = {descriptor for descriptor, _ in poll.poll(0)}
        for until, connection in waiting:
            speaks = connection.fileno() in readable and _speaks(connection)
            if not speaks and until > now:
                self._waiting.append((until, connection))
            elif speaks and self._look(connection, _speaks) in (Turn.IN, Turn.ASIDE):
                self._let_in(loop, connection)
            else:
                connection.close()
        if self._waiting:
            self._look_later()

    def _let_in(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        connection.setblocking(False)
        entering = loop.create_task(loop.connect_accepted_socket(self._protocol, connection))
        self._entering.add(entering)  # the loop alone would not keep it
        entering.add_done_callback(self._entering.discard)


def _speaks(connection: socket.socket) -> bool:
    """Return whether the head of a request has come whole."""
    try:
        said = connection.recv(PEEK_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return False
    return b"\r\n\r\n" in said or len(said) == PEEK_BYTES
