"""The built-in `health_check`: are PostgreSQL, Redis and the storage well, and how is the machine?

The probes run in parallel, each in a thread of its own with its own timeout, because a server that hangs must not hold up
the news about the others. The run's `details` are what `GET /health` answers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..action_options import SOURCE_SCHEMES
from ..clock import Clock
from ..errors import SchedulerdError
from ..model import Result, Status, from_micros, to_text
from ..secrets import masked, scrubbed
from . import Context

HEALTHY, DEGRADED, UNHEALTHY, NOT_CONFIGURED = "healthy", "degraded", "unhealthy", "not_configured"
_WORST_FIRST = (UNHEALTHY, DEGRADED, HEALTHY)
CPU_SAMPLE_SECONDS = 0.1

Answer = dict[str, Any]


class ProbeError(SchedulerdError):
    """A server could not be probed."""


@dataclass
class _Probe:
    """One probe in its thread; `answer` says what it found, or why it could not."""

    name: str
    work: Callable[[], Answer]
    clock: Clock
    answer: Answer = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"probe-{self.name}", daemon=True).start()

    def _run(self) -> None:
        start = self.clock.monotonic()
        try:
            answer = {"status": HEALTHY, **self.work()}
        except Exception as error:  # whatever a driver raises is the news that we are after
            answer = {"status": UNHEALTHY, "error": _told(error)}
        answer["latency_ms"] = round((self.clock.monotonic() - start) * 1000, 2)
        self.answer = answer
        self.done.set()


def run(context: Context) -> Result:
    """Probe everything that is configured; the details have the shape of `GET /health`, without `checked_at`."""
    details = check(context)
    services: Mapping[str, Answer] = details["services"]
    bad = [f"{name} is {one['status']}" for name, one in services.items() if one["status"] in (DEGRADED, UNHEALTHY)]
    return Result(Status.SUCCESS, len(services), "; ".join(bad) or None, details=details)


def check(context: Context) -> dict[str, Any]:
    """Return `status`, `services` and `system`."""
    options = context.options
    timeout = options["probe_timeout"]
    folders = options["storage"] or (context.config.state_dir,)
    work: dict[str, Callable[[], Answer]] = {}
    if options["postgresql"]:
        schemes = SOURCE_SCHEMES["health_check"]["postgresql"]
        work["postgresql"] = lambda: _service(
            context.url_of(options["postgresql"]), schemes, lambda url: _postgresql(url, timeout)
        )
    if options["redis"]:
        kinds = SOURCE_SCHEMES["health_check"]["redis"]
        work["redis"] = lambda: _service(context.url_of(options["redis"]), kinds, lambda url: _redis(url, timeout))
    work["storage"] = lambda: _storage(folders, options["min_free_percent"], context.run.run_id)
    work["system"] = _system
    answers = _probe_all(work, timeout, context.clock)
    system = answers.pop("system")
    services = {name: answers.get(name, {"status": NOT_CONFIGURED}) for name in ("postgresql", "redis", "storage")}
    found = {one["status"] for one in services.values()}
    status = next((each for each in _WORST_FIRST if each in found), HEALTHY)
    return {"status": status, "services": services, "system": system}


def _told(error: Exception) -> str:
    return (masked(" ".join(str(error).split())) or type(error).__name__)[:500]


def _service(url: str, schemes: tuple[str, ...], probe: Callable[[str], Answer]) -> Answer:
    """Probe a server; what its driver says of the URL must not give away the password in it."""
    if not url.startswith(schemes):
        raise ProbeError(f"the secret is no {' or '.join(schemes)} URL")
    try:
        return probe(url)
    except Exception as error:  # any driver's; told to the operator without what is secret
        raise ProbeError(scrubbed(_told(error), url)) from None


def _probe_all(work: Mapping[str, Callable[[], Answer]], timeout: float, clock: Clock) -> dict[str, Answer]:
    probes = [_Probe(name, function, clock) for name, function in work.items()]
    for probe in probes:
        probe.start()
    give_up = clock.monotonic() + timeout
    for probe in probes:
        probe.done.wait(max(0.0, give_up - clock.monotonic()))
    late = {"status": UNHEALTHY, "error": f"no answer within {timeout:g} s", "latency_ms": None}
    return {probe.name: probe.answer if probe.done.is_set() else dict(late) for probe in probes}


def _postgresql(url: str, timeout: float) -> Answer:
    import psycopg  # optional: only hosts that watch a PostgreSQL need it

    with psycopg.connect(url, connect_timeout=max(1, round(timeout)), autocommit=True) as connection:
        connection.execute("SELECT 1")
        row = connection.execute(
            "SELECT current_setting('server_version'), pg_is_in_recovery(),"
            " EXTRACT(EPOCH FROM now() - pg_last_xact_replay_timestamp())::float8"
        ).fetchone()
    version, in_recovery, lag = row if row is not None else (None, None, None)
    return {"version": version, "in_recovery": in_recovery, "replication_lag_seconds": lag}


def _redis(url: str, timeout: float) -> Answer:
    import redis  # optional: only hosts that watch a Redis need it

    client = redis.Redis.from_url(url, socket_timeout=timeout)  # for connecting, too
    try:
        client.ping()
        info = client.info()
    finally:
        client.close()
    return {"version": info["redis_version"], "role": info["role"], "used_memory_bytes": info["used_memory"]}


def _storage(folders: tuple[str, ...], min_free_percent: int, run_id: str) -> Answer:
    paths = {folder: _folder(folder, min_free_percent, run_id) for folder in folders}
    found = {one["status"] for one in paths.values()}
    status = next(each for each in _WORST_FIRST if each in found)
    errors = [
        one.get("error") or f"{folder}: little free space" for folder, one in paths.items() if one["status"] != HEALTHY
    ]
    return {"status": status, "paths": paths, **({"error": "; ".join(errors)} if errors else {})}


def _folder(folder: str, min_free_percent: int, run_id: str) -> Answer:
    try:
        space = os.statvfs(folder)
        _write_and_read(os.path.join(folder, f".schedulerd-probe-{run_id}"))
    except OSError as error:
        return {"status": UNHEALTHY, "error": f"{folder}: {error.strerror}"}
    free, total = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
    percents = [100 * free / total] if total else []
    if space.f_files:
        percents.append(100 * space.f_favail / space.f_files)
    is_low = any(percent < min_free_percent for percent in percents)
    return {
        "status": DEGRADED if is_low else HEALTHY,
        "free_bytes": free,
        "total_bytes": total,
        "free_inodes": space.f_favail,
    }


def _write_and_read(path: str) -> None:
    """Prove that the folder takes data: write, fsync, read again, delete. Raise OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, b"schedulerd")
        os.fsync(descriptor)
        if os.pread(descriptor, 16, 0) != b"schedulerd":
            raise OSError(0, "what was written could not be read again")
    finally:
        os.close(descriptor)
        os.unlink(path)


def _system() -> Answer:
    import psutil  # a few MB that a daemon without health checks need not carry

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    load1, load5, load15 = os.getloadavg()
    root = psutil.disk_usage("/")
    return {
        "cpu_percent": psutil.cpu_percent(interval=CPU_SAMPLE_SECONDS),
        "cpu_count": os.cpu_count(),
        "load1": load1,
        "load5": load5,
        "load15": load15,
        "memory_percent": memory.percent,
        "memory_available_bytes": memory.available,
        "memory_total_bytes": memory.total,
        "swap_percent": swap.percent,
        "disk_percent": root.percent,
        "disk_free_bytes": root.free,
        "boot_time": to_text(from_micros(int(psutil.boot_time()) * 1_000_000)),
    }
