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


def test_a_removed_job_keeps_its_exit_codes_and_secrets(path, monkeypatch, tmp_path):
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


def test_earlier_secrets_of_a_job_are_still_masked(path, monkeypatch):
    monkeypatch.setenv("OLD", "hunter2")
    monkeypatch.setenv("NEW", "sesame")
    archive = JobArchive(str(path))
    for name in ("OLD", "NEW"):
        job = a_job(env={"W": Secret("env", name)})
        archive.record({"job": job})

    assert known_secrets(archive.with_past_secrets(job)) == forms_of(["hunter2", "sesame"])
    assert archive.with_past_secrets(a_job("other")) == a_job("other")


def test_the_archive_remembers_that_a_job_used_a_database(path):
    for action in ("shell", "sql", "command"):
        archive = JobArchive(str(path))
        archive.record({"job": a_job(action=action, options={}), "other": a_job("other")})
        archive.record({})

    assert JobArchive(str(path)).quotes_database("job")
    assert not JobArchive(str(path)).quotes_database("other")
    path.write_text('{"old": {"action": "backup"}, "older": {"action": "shell"}}')
    assert [JobArchive(str(path)).quotes_database(job) for job in ("old", "older", "unheard-of")] == [True, False, False]


def test_an_unknown_job_or_an_unresolvable_secret_is_an_error(path, monkeypatch):
    archive = JobArchive(str(path))
    archive.record({"job": a_job(env={"W": Secret("env", "NO_SUCH")}), "open": a_job("open")})
    archive.record({})

    archive.require_secrets("open")
    with pytest.raises(SecretError, match=r"not all of its secrets can be resolved: the secret \{env: NO_SUCH\}"):
        archive.require_secrets("job")
    with pytest.raises(SecretError, match="its secrets are unknown"):
        archive.require_secrets("never")


def test_a_file_that_cannot_be_read_or_written_is_logged_and_ignored(path, caplog):
    path.write_text("{")
    archive = JobArchive(str(path))
    path.mkdir()
    archive.record({"job": a_job()})

    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert archive.removed_job("job") is not None


def test_the_archive_keeps_the_last_of_very_many_removed_jobs(path):
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
def test_a_damaged_file_is_set_aside_and_its_valid_entries_are_used(tmp_path, caplog, odd):
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
