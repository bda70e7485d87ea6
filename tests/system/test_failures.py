"""The failure loop: whatever is killed or full at any moment, what a job says itself is what the history says, once.

A few rounds each. The long form, which prints figures:

    SCHEDULERD_ROUNDS=50 pytest -s -o faulthandler_timeout=0 tests/system/test_failures.py
"""

import os
import random
import threading

import psycopg

from schedulerd.cli.client import ClientError
from tests.support.servers import PostgresServer
from tests.support.small_disk import SmallDisk, needs_root, on_disk_of, statuses
from tests.support.waiting import until
from tests.support.witness import Witness

ROUNDS = int(os.environ.get("SCHEDULERD_ROUNDS", "3"))
JOBS = 60  # each is due once a second


def moment(chance, most=1.5):
    """Let some time pass: there is nothing to wait for, the moment is to be any."""
    threading.Event().wait(chance.uniform(0.05, most))


def told(what, verdict):
    print(f"{what}: {ROUNDS} rounds, {verdict.said} runs said, {len(verdict.wrong)} wrong, "
          f"{len(verdict.rows_without_a_run)} rows without a run, {verdict.statuses}")  # fmt: skip


def test_a_daemon_that_is_killed_at_any_moment_loses_nothing(daemon, tmp_path):
    chance = random.Random()
    witness = Witness(tmp_path / "said", JOBS)
    running = daemon(witness.jobs())
    for _ in range(ROUNDS):
        running.start()
        witness.until_more_ran(JOBS // 2)
        moment(chance)
        running.kill()
    running.start()
    witness.until_more_ran(JOBS)
    running.stop()
    verdict = witness.verdict(statuses(running.folder / "state" / "history.db"))

    told("killed", verdict)
    assert verdict.wrong == []
    assert verdict.rows_without_a_run == []


@needs_root
@on_disk_of(f"{8 + ROUNDS}m")
def test_a_disk_that_is_full_at_any_moment_and_a_daemon_that_is_killed_then_lose_nothing(folder):
    chance = random.Random()
    world = SmallDisk(folder, jobs=JOBS)
    for number in range(ROUNDS):
        world.witness.until_more_ran(JOBS // 2)
        moment(chance, 0.5)
        world.fill()
        moment(chance)
        if number % 2:
            world.daemon.kill()
            world.daemon.spawn()
            moment(chance)
        world.free()
        until(lambda: (world.own() or {}).get("store") == "ok", "well again", 30)
    world.witness.until_more_ran(JOBS)

    told("full, every other time killed", world.check())


def test_a_server_that_is_killed_or_stopped_at_any_moment_and_a_daemon_too_lose_nothing(daemon, tmp_path):
    chance = random.Random()
    server = PostgresServer()
    try:
        witness = Witness(tmp_path / "said", JOBS)
        running = daemon(witness.jobs(), store=server.url).start()
        for number in range(ROUNDS):
            witness.until_more_ran(JOBS // 2)
            moment(chance, 0.5)
            (server.kill if number % 2 else server.stop)()
            moment(chance)
            if number % 3 == 1:
                running.kill()
                running.spawn()
                moment(chance)
            server.start()
            until(lambda: is_well(running), "well again", 30)
        witness.until_more_ran(JOBS)
        running.stop()
        with psycopg.connect(server.url) as connection:
            verdict = witness.verdict(dict(connection.execute("SELECT run_id, status FROM schedulerd.runs").fetchall()))
    finally:
        server.close()

    told("server killed or stopped, every third time the daemon too", verdict)
    assert verdict.wrong == []
    assert verdict.rows_without_a_run == []


def is_well(running):
    try:
        return running.client.get("health")["scheduler"]["store"] == "ok"
    except ClientError:
        return False
