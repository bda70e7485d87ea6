"""What is kept of jobs that are gone: how their ends are judged, and which secrets their outputs may hold."""

import stat

import pytest

from schedulerd.core.errors import SecretError
from schedulerd.core.models import Secret
from schedulerd.secrets.forms import forms_of
from schedulerd.secrets.job_archive import MOST_GONE, JobArchive
from schedulerd.secrets.job_secrets import known_secrets
from tests.support.builders import a_job

HEADERS = {"X-Key": Secret("env", "KEY"), "X-Too": Secret("env", "KEY")}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keepsakes.json"


def test_a_job_that_is_gone_is_judged_and_masked_as_it_was(path, monkeypatch, tmp_path):
    monkeypatch.setenv("WORD", "hunter2")
    monkeypatch.setenv("KEY", "sesame")
    (tmp_path / "env").write_text("A=12345678\n")
    was = a_job(
        action="http", options={"headers": HEADERS}, env={"W": Secret("env", "WORD")}, user="nobody",
        success_exit_codes=(0, 3), env_files=(str(tmp_path / "env"),),
    )  # fmt: skip
    JobArchive(str(path)).record({"job": was})
    later = JobArchive(str(path))
    later.record({})
    job = JobArchive(str(path)).removed_job("job")

    assert (job.action, job.user, job.success_exit_codes, job.output_limit_bytes) == ("http", "nobody", (0, 3), 10 * 1024**2)
    assert known_secrets(job) == forms_of(["12345678", "hunter2", "sesame"])
    later.require_secrets("job")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not [word for word in ("hunter2", "sesame", "12345678") if word in path.read_text()]


def test_what_a_job_named_earlier_is_masked_still(path, monkeypatch):
    monkeypatch.setenv("OLD", "hunter2")
    monkeypatch.setenv("NEW", "sesame")
    archive = JobArchive(str(path))
    for name in ("OLD", "NEW"):
        job = a_job(env={"W": Secret("env", name)})
        archive.record({"job": job})

    assert known_secrets(archive.with_past_secrets(job)) == forms_of(["hunter2", "sesame"])
    assert archive.with_past_secrets(a_job("other")) == a_job("other")


def test_a_job_that_once_worked_on_a_database_is_known_for_it(path):
    for action in ("shell", "sql", "command"):
        archive = JobArchive(str(path))
        archive.record({"job": a_job(action=action, options={}), "other": a_job("other")})
        archive.record({})

    assert JobArchive(str(path)).quotes_database("job")
    assert not JobArchive(str(path)).quotes_database("other")
    path.write_text('{"old": {"action": "backup"}, "older": {"action": "shell"}}')
    assert [JobArchive(str(path)).quotes_database(job) for job in ("old", "older", "unheard-of")] == [True, False, False]


def test_a_job_of_which_nothing_is_known_or_whose_secret_is_gone_is_told(path, monkeypatch):
    archive = JobArchive(str(path))
    archive.record({"job": a_job(env={"W": Secret("env", "NO_SUCH")}), "open": a_job("open")})
    archive.record({})

    archive.require_secrets("open")
    with pytest.raises(SecretError, match=r"not all of its secrets can be resolved: the secret \{env: NO_SUCH\}"):
        archive.require_secrets("job")
    with pytest.raises(SecretError, match="its secrets are unknown"):
        archive.require_secrets("never")


def test_a_file_that_cannot_be_read_or_written_is_told_and_stops_nothing(path, caplog):
    path.write_text("{")
    archive = JobArchive(str(path))
    path.mkdir()
    archive.record({"job": a_job()})

    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert archive.removed_job("job") is not None


def test_of_very_many_jobs_that_are_gone_the_last_are_kept(path):
    archive = JobArchive(str(path))
    archive.record({f"j{number}": a_job(f"j{number}") for number in range(MOST_GONE + 1)})
    archive.record({"job": a_job()})

    assert (archive.removed_job("j0"), archive.removed_job("j1").job_id) == (None, "j1")


@pytest.mark.parametrize(
    "odd",
    [
        "7", "null", "[]", '["action"]', '{"a": 7}', '{"a": []}', '{"a": {}}', '{"a": {"action": 7}}', "{", "[" * 100_000,
        '{"a": {"action": "command", "success_exit_codes": 0}}', '{"a": {"action": "command", "secrets": [["env"]]}}',
        '{"a": {"action": "command", "secrets": [[1, 2]]}}', '{"a": {"action": "command", "env_files": [{}]}}',
        '{"a": {"action": "command", "output_limit_bytes": "1M"}}', '{"a": {"action": "command", "user": 7}}',
    ],
    ids=range(16),
)  # fmt: skip
def test_a_file_that_is_odd_is_kept_aside_and_what_can_be_used_of_it_is_used(tmp_path, caplog, odd):
    path = tmp_path / "keepsakes.json"
    good = '{"good": {"action": "command", "success_exit_codes": [0]}, '
    path.write_text(good + odd[1:] if odd.startswith('{"a"') else odd)
    content = path.read_text()
    archive = JobArchive(str(path))

    assert (archive.removed_job("good") is not None) == odd.startswith('{"a"')
    assert archive.removed_job("a") is None
    (aside,) = tmp_path.glob("keepsakes.json.damaged-*")
    assert aside.read_text() == content
    assert str(aside) in caplog.text
    archive.record({"job": a_job("job")})
    assert JobArchive(str(path)).removed_job("job") is not None
