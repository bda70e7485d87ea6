"""When does it start next, what became of it and why, what will happen: asked of a real daemon and of `schedulerctl`."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta

import pytest

from tests.support.daemon import RunningDaemon
from tests.support.waiting import until

JOBS = {
    "second": {"every": "1s", "shell": "true"},
    "night": {"cron": "30 2 * * *", "shell": "true"},
    "office": {
        "calendar": "Mon..Fri *-*-* 08..17:00/30",
        "blackout": ["2027-01-01", {"calendar": "feasts"}],
        "shell": "true",
    },
    "later": {"every": "monday at 09:30", "blackout": "mon 09:00..12:00", "on_blackout": "defer", "shell": "true"},
    "once": {"at": "2027-05-01T12:00:00", "shell": "true"},
    "first": {"startup": True, "shell": "true"},
    "then": {"after": {"job": "first"}, "shell": "true"},
    "asked": {"shell": "true"},
    "spread": {"cron": "@daily", "jitter": "10m", "spread": "10m", "shell": "true"},
}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers")
    (folder / "feasts.yaml").write_text("2027-01-06: Epiphany\n")
    made = RunningDaemon(folder, {"timezone": "Europe/Rome", "calendars": {"feasts": "feasts.yaml"}, "jobs": JOBS})
    made.start()
    yield made
    made.close()


@pytest.fixture
def ctl(running):
    def call(*words, door=True):
        place = ["--socket", str(running.socket_path)] if door else ["--socket", "/no/such/socket"]
        return subprocess.run(
            [sys.executable, "-m", "schedulerd.cli", *place, *words], capture_output=True, text=True, check=False,
            env={**os.environ},
        )  # fmt: skip

    return call


def local_times(answer):
    return [each["local"] for each in answer["times"]]


def test_next_gives_any_number_of_coming_starts_with_reasons(running):
    answer = running.client.get("jobs/night/next", count=3, after="2027-03-27T12:00:00Z")

    assert local_times(answer) == ["2027-03-28T03:00:00+02:00", "2027-03-29T02:30:00+02:00", "2027-03-30T02:30:00+02:00"]
    assert "02:30:00 does not exist on 2027-03-28" in answer["times"][0]["reasons"][0]
    assert answer["trigger"] == "cron: 30 2 * * * Europe/Rome"


def test_next_leaves_out_blackouts_and_names_them(running):
    answer = running.client.get("jobs/office/next", count=1, after="2026-12-31T18:00")
    feast = running.client.get("jobs/office/next", count=2, after="2027-01-05T17:00")

    assert local_times(answer) == ["2027-01-04T08:00:00+01:00"]
    assert {each["reasons"][-1] for each in answer["skipped"]} == {"in blackout 2027-01-01"}
    assert local_times(feast) == ["2027-01-05T17:30:00+01:00", "2027-01-07T08:00:00+01:00"]
    assert "Epiphany" in feast["skipped"][0]["reasons"][-1]


def test_next_shows_when_what_is_deferred_starts(running):
    (first,) = running.client.get("jobs/later/next", count=1, after="2027-01-10T00:00")["times"]

    assert (first["local"], first["scheduled_at"]) == ("2027-01-11T12:00:00+01:00", "2027-01-11T08:30:00Z")


@pytest.mark.parametrize(
    ("job_id", "note"),
    [
        ("once", "there are no further times"),
        ("first", "it starts once at each start of the daemon"),
        ("then", "it starts after first"),
        ("asked", "it starts by request only"),
    ],
)
def test_next_says_what_else_there_is_to_know(running, job_id, note):
    assert any(note in each for each in running.client.get(f"jobs/{job_id}/next")["notes"])


def test_a_pause_is_told_with_the_times_it_will_skip(running):
    running.client.post("jobs/once/pause", {"reason": "not now"})
    answer = running.client.get("jobs/once/next")
    running.client.post("jobs/once/resume")

    assert answer["is_paused"]
    assert "it will be skipped" in answer["times"][0]["reasons"][0]
    assert "not now" in answer["notes"][-1]


def test_jitter_and_spread_are_kept_apart_from_the_occurrence(running):
    for each in running.client.get("jobs/spread/next", count=5)["times"]:
        at, scheduled = (datetime.fromisoformat(each[name]) for name in ("at", "scheduled_at"))
        assert timedelta() < at - scheduled < timedelta(minutes=20)
        assert each["reasons"][0].endswith("by jitter and spread")


def test_the_list_of_jobs_shows_every_kind_of_trigger(running):
    kinds = {job["job_id"]: job["trigger_type"] for job in running.client.get("jobs")}

    assert kinds == {
        "second": "interval", "night": "cron", "office": "calendar", "later": "interval", "once": "date",
        "first": "startup", "then": "after", "asked": None, "spread": "cron",
    }  # fmt: skip


def test_what_starts_with_the_daemon_and_what_follows_it_has_run_once(running):
    running.until_run("then", "success")

    assert [run["origin"] for run in running.history("first")] == ["startup"]
    (run,) = running.history("then")
    assert run["origin"] == "after"
    assert run["details"]["after"] == {"first": running.history("first")[0]["run_id"]}
    assert run["scheduled_at"] == running.history("first")[0]["finished_at"]


def test_why_tells_of_a_run_what_the_ledger_has(running):
    run = running.until_run("second", "success")[-1]
    answer = running.client.get("jobs/second/why", at=run["scheduled_at"])

    assert answer["outcome"] == "success"
    assert answer["run"]["run_id"] == run["run_id"]
    assert "started at" in answer["reason"]


@pytest.mark.parametrize(
    ("job_id", "at", "outcome", "words"),
    [
        (
            "night",
            "2027-03-28T02:30",
            "coming",
            "02:30:00 does not exist on 2027-03-28: clocks go from 02:00 to 03:00",
        ),
        (
            "night",
            "2027-03-28T02:15",
            "coming",
            "02:15 does not exist on 2027-03-28 in Europe/Rome: clocks go from 02:00 to 03:00",
        ),
        ("night", "2027-10-31T01:30:00Z", "not_due", "second pass"),
        ("night", "2027-01-01T05:00", "not_due", "the next one is 2027-01-02T02:30:00+01:00"),
        ("night", "2020-01-01T02:30", "not_planned", "in force only since"),
        ("office", "2027-01-01T09:00", "coming", "it will be skipped: blackout 2027-01-01"),
        ("later", "2027-01-11T09:30", "coming", "it will start at 2027-01-11T11:00:00Z"),
        ("asked", "2027-01-01T00:00", "not_due", "it starts by request only"),
    ],
)
def test_why_tells_of_other_times_what_the_rules_say(running, job_id, at, outcome, words):
    answer = running.client.get(f"jobs/{job_id}/why", at=at)

    assert answer["outcome"] == outcome
    assert words in answer["reason"]


def test_simulate_plays_a_window_for_all_jobs(running):
    running.until_run("second", "success")
    answer = running.client.get("simulate", **{"from": "2027-03-27T23:00:00Z", "to": "2027-03-28T23:00:00Z"})

    assert answer["jobs"] == len(JOBS)
    assert answer["is_whole"] is False
    assert answer["played_until"] < answer["to"]
    assert len(answer["timeline"]) == 10_000
    whole = running.client.get("simulate", **{"from": "2027-03-28T00:59:00Z", "to": "2027-03-28T01:01:00Z"})
    (night,) = (each for each in whole["timeline"] if each["job_id"] == "night")
    assert (night["local"], night["will"]) == ("2027-03-28T03:00:00+02:00", "start")
    assert whole["starts"] == 121
    assert whole["peak"]["running"] >= 1
    assert sum(part["starts"] for part in whole["load"]) == 121


@pytest.mark.parametrize(
    ("path", "loc"),
    [
        ("jobs/night/next?count=0", ["query", "count"]),
        ("jobs/night/next?count=x", ["query", "count"]),
        ("jobs/night/next?after=soon", ["query", "after"]),
        ("jobs/night/why?at=99", ["query", "at"]),
        ("jobs/night/why?at=9999-12-31T23:59:59", ["query", "at"]),
        ("jobs/night/next?after=0001-01-01T00:00:00", ["query", "after"]),
        ("simulate?from=2027-01-01", ["query", "from"]),
        ("simulate?from=0001-01-01T00:00:00Z", ["query", "from"]),
        ("simulate?from=9999-12-31T00:00:00Z", ["query", "from"]),
        ("jobs/office/next?after=9996-01-01", ["query", "after"]),
        ("jobs/office/why?at=9957-01-01", ["query", "at"]),
        ("simulate?from=2027-01-02T00:00:00Z&to=2027-01-01T00:00:00Z", ["query", "to"]),
        ("simulate?from=2027-01-01T00:00:00Z&to=2029-01-01T00:00:00Z", ["query", "to"]),
    ],
)
def test_a_bad_question_is_422_with_its_place(running, path, loc):
    answer = running.client.ask("GET", f"/api/v1/scheduler/{path}")

    assert answer.status == 422
    assert answer.body["detail"][0]["loc"] == loc


@pytest.mark.parametrize("path", ["jobs/none/next", "jobs/none/why"])
def test_an_unknown_job_is_404(running, path):
    assert running.client.ask("GET", f"/api/v1/scheduler/{path}").status == 404


# schedulerctl


def test_ctl_next_and_why_are_tables_with_reasons(ctl):
    following = ctl("next", "night", "--count", "2", "--after", "2027-03-27T12:00")
    why = ctl("why", "night", "2027-03-28T02:30")

    assert following.stdout.splitlines()[0].split() == ["LOCAL", "UTC", "REASON"]
    assert following.stdout.splitlines()[1].startswith("2027-03-28T03:00:00+02:00")
    assert why.stdout.count("does not exist") == 1


def test_ctl_simulate_sums_up(ctl):
    words = ("simulate", "--from", "2027-03-28T00:59:00Z", "--to", "2027-03-28T01:01:00Z", "--limit", "5")
    found = ctl(*words)

    assert len(found.stdout.splitlines()) == 1 + 5 + 2
    assert "121 starts and 0 skips" in found.stdout
    assert "the first 5 of 121 are shown" in found.stdout
    assert json.loads(ctl(*words, "--json").stdout)["starts"] == 121


def test_ctl_explain_needs_no_daemon(ctl):
    found = ctl(
        "explain",
        "--cron",
        "30 2 * * *",
        "--timezone",
        "Europe/Rome",
        "--after",
        "2026-10-24T12:00",
        "--count",
        "2",
        door=False,
    )

    lines = found.stdout.splitlines()
    assert lines[0] == "cron: 30 2 * * * Europe/Rome (gap run, repeat once)"
    assert lines[2].split()[:2] == ["2026-10-25T02:30:00+02:00", "2026-10-25T00:30:00Z"]
    assert "occurs twice" in lines[2]


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (("--calendar", "mon,tue 8..10:30 Europe/Rome"), "2027-01-04T07:30:00Z"),
        (("--every", "2h"), "2027-01-01T02:00:00Z"),
        (("--every", "monday at 09:30"), "2027-01-04T09:30:00Z"),
        (("--at", "2027-02-01T00:00"), "2027-02-01T00:00:00Z"),
        (("--cron", "0 12 * * *", "--blackout", "fri..sun"), "2027-01-04T12:00:00Z"),
        (
            ("--cron", "0 30 2 * * *", "--timezone", "Europe/Rome", "--gap", "skip", "--repeat", "both"),
            "2027-01-01T01:30:00Z",
        ),
    ],
)
def test_ctl_explain_knows_every_kind(ctl, words, first):
    found = json.loads(ctl("explain", *words, "--after", "2027-01-01", "--count", "1", "--json", door=False).stdout)

    assert [each["at"] for each in found["times"]] == [first]
    if "--calendar" in words:
        assert found["normalized"] == "Mon,Tue *-*-* 08..10:30:00 Europe/Rome"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--cron", "0 0 30 2 *"), "it can never be due"),
        (("--calendar", "*-02-30"), "it can never be due"),
        (("--every", "blue moon"), "every 'blue moon'"),
        (("--cron", "* * * * *", "--timezone", "Mars"), "there is no time zone 'Mars'"),
        (("--cron", "* * * * *", "--count", "0"), "expected 1 to 1000"),
        (("--cron", "* * * * *", "--after", "soon"), "expected a date and time"),
    ],
)
def test_ctl_explain_refuses_with_the_reason(ctl, words, why):
    found = ctl("explain", *words, door=False)

    assert found.returncode == 1
    assert why in found.stderr


def test_a_changed_calendar_file_is_seen_at_a_reload(running):
    (running.folder / "feasts.yaml").write_text("2027-01-07: another day\n")
    running.reload({"timezone": "Europe/Rome", "calendars": {"feasts": "feasts.yaml"}, "jobs": JOBS})
    answer = until(lambda: running.client.get("jobs/office/next", count=1, after="2027-01-06T18:00"), "the answer")
    (running.folder / "feasts.yaml").write_text("2027-01-06: Epiphany\n")
    running.reload({"timezone": "Europe/Rome", "calendars": {"feasts": "feasts.yaml"}, "jobs": JOBS})

    assert local_times(answer) == ["2027-01-08T08:00:00+01:00"]
