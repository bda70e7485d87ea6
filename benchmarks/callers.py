"""Callers of the API, each in a separate process: one sends requests during a burst, a crowd measures requests per second.

Run as a program, this module is one of them.
"""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from target import UnixConnection

JOBS_PATH = "/api/v1/scheduler/jobs"
ASK_EVERY = 0.005  # seconds between two requests of the caller during a burst
QUIET = 1.0  # seconds: the measurements begin so long before the burst


@contextlib.contextmanager
def helper(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Provide a process that is a caller. It is always ended afterwards."""
    process = subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def end_of(process: subprocess.Popen[str]) -> str:
    """End a helper, and return its output."""
    process.terminate()
    return process.communicate(timeout=60)[0]


def sleep_until(moment: float) -> None:
    """Sleep until a Unix time."""
    time.sleep(max(0.0, moment - time.time()))


def be_asking(path: str, due: int) -> None:
    """Request the list of jobs repeatedly until SIGTERM. Print the milliseconds of the requests since `due`."""
    asked: list[float] = []
    is_over: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: is_over.append(number))
    connection = UnixConnection(path)
    sleep_until(due - QUIET)
    while not is_over:
        start = time.monotonic()
        if connection.status_of(JOBS_PATH) != 200:
            raise RuntimeError("the list of jobs was refused")
        took = time.monotonic() - start
        if time.time() >= due:
            asked.append(took * 1000)
        time.sleep(ASK_EVERY)
    print(json.dumps(asked))


def be_crowd(path: str, count: int, seconds: float) -> None:
    """Request the list on many connections at once, at the least cost in Python: responses are counted, not parsed."""
    request = f"GET {JOBS_PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    size = size_of_answer(path, request)
    epoll, buffer, missing, sockets = select.epoll(), bytearray(1 << 20), {}, {}
    for _ in range(count):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(path)
        sockets[connection.fileno()], missing[connection.fileno()] = connection, size
        epoll.register(connection.fileno(), select.EPOLLIN)
        connection.sendall(request)
    answers, start, cpu = 0, time.monotonic(), time.process_time()
    while time.monotonic() < start + seconds:
        for descriptor, _ in epoll.poll(0.1):
            got = sockets[descriptor].recv_into(buffer)
            missing[descriptor] -= got
            if got == 0 or missing[descriptor] < 0:
                raise RuntimeError("an answer was cut short, or the list changed its size")
            if missing[descriptor] == 0:
                answers += 1
                missing[descriptor] = size
                sockets[descriptor].sendall(request)
    took = time.monotonic() - start
    cores = (time.process_time() - cpu) / took
    print(json.dumps({"requests": answers, "seconds": took, "size": size, "cores": cores}))


def size_of_answer(path: str, request: bytes) -> int:
    """Return the size of a response, head and body, in bytes. It is constant while the state does not change."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        connection.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
    head = data.partition(b"\r\n\r\n")[0]
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return len(head) + 4 + int(length.partition(b":")[2])


def play(part: str, words: list[str]) -> None:
    """Run as one of the helper processes."""
    if part == "ask":
        be_asking(words[0], int(words[1]))
    else:
        be_crowd(words[0], int(words[1]), float(words[2]))


if __name__ == "__main__":
    play(sys.argv[1], sys.argv[2:])
