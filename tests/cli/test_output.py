"""Tables, exit statuses and texts of `schedulerctl`, without a daemon."""

import pytest

from schedulerd.cli.follow import format_status
from schedulerd.cli.main import make_parser
from schedulerd.cli.output import field_rows, format_percent, format_seconds, format_time, format_waiting, printable_lines
from schedulerd.cli.runs import exit_code


def test_the_fields_of_a_nested_value_are_indented_below_its_name():
    record = {
        "name": "a", "none": None, "empty": {}, "yes": True, "tags": ["x", "y"],
        "last": {"status": "failed", "details": {"traceback": "one\ntwo\n"}}, "checks": [{"holds": 1}],
    }  # fmt: skip

    assert field_rows(record) == [
        ("name", "a"), ("none", "-"), ("empty", "-"), ("yes", "true"), ("tags", "x, y"),
        ("last", ""), ("  status", "failed"), ("  details", ""), ("    traceback", "one"), ("", "two"),
        ("checks", ""), ("  1", ""), ("    holds", "1"),
    ]  # fmt: skip


def test_the_help_ends_with_examples():
    assert "examples:" in make_parser().format_help()


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({"status": "success", "exit_code": 0}, 0), ({"status": "success", "exit_code": 4}, 0),
        ({"status": "failed", "exit_code": 7}, 7), ({"status": "failed", "exit_code": -9}, 137),
        ({"status": "timed_out", "exit_code": -15}, 124), ({"status": "failed"}, 1), ({"status": "skipped"}, 1),
        ({"status": "failed", "exit_code": 0}, 1), ({"status": "cancelled", "exit_code": -15}, 143),
    ],
)  # fmt: skip
def test_the_exit_status_of_run_is_that_of_the_job(run, expected):
    assert exit_code(run) == expected


def test_what_is_absent_is_a_dash():
    assert (format_time(None), format_seconds(None), format_percent(None)) == ("-", "-", "-")


def test_a_time_has_its_offset(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")

    assert format_time("2026-03-10T12:00:00.250000Z").startswith("2026-03-10T")
    assert format_time("2026-03-10T12:00:00Z")[19:] != ""


def test_a_queued_run_names_what_it_waits_for():
    reasons = [{"text": "pool db"}, {"text": "the host"}]

    assert format_waiting({"run_id": "r", "waits_for": reasons}) == "run r waits for pool db and the host"
    assert format_waiting({"run_id": "r", "waits_for": []}) == "run r waits for its turn"


def test_the_lines_of_a_job_are_indented_and_have_no_control_characters():
    assert printable_lines("a\nschedulerctl: b\x1b[2J") == "a\n  schedulerctl: b [2J"


def test_the_status_line_has_what_is_known():
    run = {"job_id": "j", "status": "running", "running_seconds": 61.2, "progress": 0.5, "eta_seconds": 30.0}

    assert format_status(run) == "j: running, for 1m 1s, 50%, about 30.0s left"
    assert format_status({**run, "running_seconds": None, "progress": None, "eta_seconds": None}) == "j: running"
