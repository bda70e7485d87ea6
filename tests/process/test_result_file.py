"""What a run says about itself: what is right is used, what is wrong is a warning, and nothing can hang or fail."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulerd.core.models import Result, Status
from schedulerd.process.output import OutputFolder
from schedulerd.process.result_file import (
    RESULT_LIMIT,
    Reported,
    make_result_file,
    merged,
    read_result,
    result_path,
    shown,
    take_result,
)
from tests.support.builders import a_job, a_run

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.fixture
def said(tmp_path):
    def say(value):
        path = tmp_path / "run.result"
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
        return read_result(str(path))

    return say


def test_everything_that_is_right_is_used(said):
    value = {"records_processed": 120, "message": "done", "details": {"a": [1, {"b": None}]}, "progress": 0.4}

    assert said(value) == Reported(**value)


def test_a_run_that_says_nothing_is_no_matter(tmp_path, said):
    assert read_result(str(tmp_path / "none")) == said(b"") == said(b" \n") == said({}) == Reported()


@pytest.mark.parametrize(
    ("value", "warning"),
    [
        ({"records_processed": -1}, "records_processed is not"),
        ({"records_processed": True}, "records_processed is not"),
        ({"records_processed": 1.5}, "records_processed is not"),
        ({"records_processed": "5"}, "records_processed is not"),
        ({"records_processed": 2**63}, "records_processed is not"),
        ({"message": 5}, "message is not"),
        ({"message": "half \ud800"}, "message is not"),
        ({"message": "nul \0"}, "message is not"),
        ({"details": [1]}, "details is not"),
        ({"details": {"a": float("nan")}}, "details is not"),
        ({"details": {"a": ["\udc80"]}}, "details is not"),
        ({"progress": 1.1}, "progress is not"),
        ({"progress": float("nan")}, "progress is not"),
        ({"recrods": 1}, "the result knows no 'recrods'"),
        ({"\ud800": 1}, "the result knows no such key"),
        ([1], "not a JSON object"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"records_processed": 1' + b"0" * 5000 + b"}", "not JSON"),
        (b'{"details": {"a": 1e999}}', "details is not"),
        (b'{"details": {"a": ' + b"[" * 500 + b"]" * 500 + b"}}", "details is not"),
        (b"[" * 60_000, "not JSON"),
        (b" " * (RESULT_LIMIT + 1), "larger than 64 KiB"),
    ],
)
def test_what_is_wrong_is_a_warning(said, value, warning):
    reported = said(value)

    assert len(reported.warnings) == 1
    assert warning in reported.warnings[0]
    assert reported == Reported(warnings=reported.warnings)


def test_what_is_right_is_used_beside_what_is_wrong(said):
    reported = said({"records_processed": "x", "message": "done", "progress": 7, "details": {"a": 1}})

    assert (reported.message, reported.details, len(reported.warnings)) == ("done", {"a": 1}, 2)


def test_a_long_message_is_cut(said):
    assert shown(said({"message": "x" * 3000}), ()).message == "x" * 1999 + "…"


def test_a_secret_is_masked_in_every_text_before_a_long_one_is_cut(said):
    secret = "SECRET-abcdefghijklmnopqrstuvwxyz"
    told = {
        "message": "x" * 1990 + secret + "y",
        "details": {"traceback": [{"a": f"({secret})", secret: 1}], "end": secret[9:] + "y" * 999 + secret[:9]},
        "warnings": [f"w {secret}", 7 * secret],
    }
    kept = shown(said(told), [secret.encode()])

    assert kept.message == "x" * 1990 + "***y"
    assert kept.details == {"traceback": [{"a": "(***)", "***": 1}], "end": "***" + "y" * 999 + "***"}
    assert kept.warnings == ("w ***", 7 * "***")


def test_a_run_cannot_say_that_it_is_followed_or_has_a_deadline():
    reported = Reported(details={"retry": "x", "deadline_at": "2027-01-01T00:00:00Z", "reason": "why", "own": 1})
    result = merged(a_job(), a_run(), reported, Result(Status.SUCCESS), None)

    assert result.details.pop("warnings")[0] == "the result may not set details.deadline_at: schedulerd does"
    assert result.details == {"own": 1}


@given(st.dictionaries(st.sampled_from(["records_processed", "message", "details", "progress", "x", "warnings"]), PLAIN))
def test_whatever_is_said_can_be_kept(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "any.result"
    path.write_text(json.dumps(value))
    result = merged(a_job(), a_run(), read_result(str(path)), Result(Status.SUCCESS), None)

    assert "\\u0000" not in json.dumps([result.details, result.message], allow_nan=False).replace("\\\\", "")
    json.dumps([result.details, result.message], ensure_ascii=False).encode()


def test_a_link_is_not_followed_and_a_pipe_is_not_awaited(tmp_path):
    (tmp_path / "secret").write_text('{"message": "root:x:0"}')
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()

    for name in ("link", "pipe", "folder"):
        reported = take_result(str(tmp_path / name))
        assert reported.message is None
        assert reported.warnings
    assert (tmp_path / "secret").exists()
    assert not (tmp_path / "pipe").exists()


def test_a_result_that_nobody_took_goes_with_the_runs_output(tmp_path):
    folder, run = OutputFolder(str(tmp_path / "output")), a_run()
    own = tmp_path / "results" / f"{run.run_id}.result"
    own.parent.mkdir()
    beside = Path(result_path(folder.make(run.run_id), a_job()))
    for each in (own, beside):
        each.write_text("{}")
    folder.delete(run.run_id)

    assert not own.exists()
    assert not beside.exists()


def test_a_result_is_taken_once(tmp_path):
    path = tmp_path / "run.result"
    path.write_text('{"records_processed": 4}')

    assert take_result(str(path)).records_processed == 4
    assert take_result(str(path)) == Reported()


def test_our_details_win_over_what_the_run_says():
    reported = Reported(details={"cpu_seconds": 0, "own": 1})
    run = a_run(details={"params": {"a": 1}})
    result = merged(a_job(), run, reported, Result(Status.SUCCESS, details={"cpu_seconds": 5}), None)

    assert result.details == {"cpu_seconds": 5, "params": {"a": 1}, "own": 1}


@pytest.mark.parametrize(
    ("action", "exit_code", "message", "told", "expected"),
    [
        ("shell", 3, None, None, "exit status 3"),
        ("shell", 3, None, "the tail", "exit status 3; last output: the tail"),
        ("shell", 1, "disk full", "the tail", "exit status 1: disk full"),
        ("python", 1, "ValueError: x", "the tail", "ValueError: x"),
        ("python", 3, "ValueError: x", "the tail", "exit status 3: ValueError: x"),
        ("python", 1, None, "the tail", "exit status 1; last output: the tail"),
        ("sql", -9, None, "the tail", "exit status -9"),
        ("backup", 1, None, "the tail", "exit status 1"),
    ],
)
def test_a_failure_keeps_our_reason_before_its_own(action, exit_code, message, told, expected):
    job = a_job(action=action, options={})
    result = Result(Status.FAILED, 0, f"exit status {exit_code}", exit_code)

    assert merged(job, a_run(), Reported(message=message), result, told).message == expected


def test_the_result_of_another_user_is_where_they_can_reach_it(tmp_path):
    output = f"{tmp_path}/state/output/2026-01-01/id.log"

    assert result_path(output, a_job()) == f"{tmp_path}/state/output/2026-01-01/id.result"
    assert result_path(output, a_job(user="nobody")) == f"{tmp_path}/state/results/id.result"


def test_the_way_to_another_users_result_is_passable_and_nothing_more(tmp_path):
    (tmp_path / "state").mkdir(0o700)
    path = tmp_path / "state" / "results" / "id.result"
    make_result_file(str(path), os.geteuid())

    modes = [each.stat().st_mode & 0o777 for each in (path, path.parent, path.parent.parent)]
    assert modes == [0o600, 0o711, 0o711]
    with pytest.raises(FileExistsError):
        make_result_file(str(path), os.geteuid())
