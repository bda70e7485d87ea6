"""The history and the outage journal fail with EIO under a real daemon: nothing that is due meanwhile is lost."""

from datetime import datetime, timedelta
from itertools import pairwise

from tests.support.iofault import IoFault
from tests.support.waiting import until

BOTH = ("history.db", "outage.journal")


def own(running):
    return running.client.get("health")


def test_what_is_due_while_nothing_can_be_written_is_told_and_follows_catch_up_when_it_can(daemon, tmp_path):
    fault, ran = IoFault(tmp_path), tmp_path / "ran"
    jobs = {"often": {"every": "1s", "catch_up": "all", "shell": f"echo $SCHEDULERD_SCHEDULED_AT >> {ran}"}}
    running = daemon(jobs, env=fault.env, outage_journal="1M").start()
    running.until_run("often", "success")
    fault.fail("write,sync", *BOTH)
    until(lambda: (health := own(running))["status"] == "unhealthy" and health["scheduler"]["unwritten"]["due"], "unhealthy")
    before = len(ran.read_text().splitlines())
    until(lambda: own(running)["scheduler"]["unwritten"]["due"] > 2, "what waits")
    assert len(ran.read_text().splitlines()) == before
    assert running.client.ask("GET", "/readyz").status == 503
    fault.heal()
    until(
        lambda: (health := own(running))["scheduler"]["unwritten"] is None and health["scheduler"]["store"] == "ok", "well"
    )
    running.until_run("often", "success", before + 5)

    assert own(running)["scheduler"]["store_alarm"] is None
    times = sorted(datetime.fromisoformat(row["scheduled_at"]) for row in running.history("often", limit=100))
    assert {after - before for before, after in pairwise(times)} == {timedelta(seconds=1)}
    assert running.stop() == 0
    said = ran.read_text().splitlines()
    assert len(said) == len(set(said))


def test_a_history_that_cannot_be_written_is_not_called_well_while_there_is_nothing_to_write(daemon, tmp_path):
    fault = IoFault(tmp_path)
    running = daemon({"job": {"shell": "true"}}, env=fault.env, outage_journal="1M").start()
    fault.fail("write", *BOTH)
    assert running.client.ask("POST", "/api/v1/scheduler/jobs/job/trigger").status == 503
    failed = fault.count()
    until(lambda: fault.count() > failed + 5, "some more tries")

    assert own(running)["status"] == "unhealthy"
    assert "can be written again" not in running.log()
    fault.heal()
    until(lambda: own(running)["scheduler"]["store"] == "ok", "well again")
    assert running.stop() == 0


def test_a_commit_that_failed_and_is_in_the_log_of_the_history_all_the_same_starts_nothing_twice(daemon, tmp_path):
    fault, ran = IoFault(tmp_path), tmp_path / "ran"
    jobs = {"often": {"every": "2s", "catch_up": "all", "shell": f"echo $SCHEDULERD_SCHEDULED_AT >> {ran}"}}
    running = daemon(jobs, env=fault.env, outage_journal="1M").start()
    running.until_run("often", "success")
    fault.fail("sync", *BOTH)
    until(lambda: (waits := own(running)["scheduler"]["unwritten"]) and waits["due"], "what waits")
    before = len(ran.read_text().splitlines())
    fault.fail("write,sync", "history.db")  # nothing takes the place of what is in its log
    until(lambda: len(ran.read_text().splitlines()) > before, "a start by the journal")
    running.kill()
    fault.heal()
    running.start()
    running.until_run("often", "success", before + 3)

    assert running.stop() == 0
    said = ran.read_text().splitlines()
    assert len(said) == len(set(said))


def test_a_journal_that_cannot_be_read_is_no_damage(daemon, tmp_path):
    fault = IoFault(tmp_path)
    jobs = {"often": {"every": "1s", "shell": "true"}}
    running = daemon(jobs, env=fault.env, outage_journal="1M").start()
    running.until_run("often", "success")
    fault.fail("write,sync", "history.db")
    until(lambda: own(running)["scheduler"]["backlog"], "the backlog")
    fault.fail("read", "outage.journal")
    until(lambda: "cannot be read" in (own(running)["scheduler"]["store_alarm"] or ""), "the alarm")
    fault.heal()
    until(lambda: own(running)["scheduler"]["store"] == "ok", "well again")

    assert own(running)["scheduler"]["store_alarm"] is None
    assert not list(running.folder.rglob("outage.journal.damaged-*"))
    assert running.stop() == 0
