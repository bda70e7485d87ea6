"""Records in the journal have their fields, and each is one."""

import logging
import os
import socket
import struct

import pytest

from schedulerd.logs import Journal, set_up, subjects


def fields_of(datagram):
    """Return the fields of a record of the journal's native protocol."""
    found = {}
    while datagram:
        name, rest = datagram.split(b"\n", 1)
        (size,) = struct.unpack("<Q", rest[:8])
        found[name.decode()] = rest[8 : 8 + size].decode()
        datagram = rest[8 + size + 1 :]
    return found


@pytest.fixture
def journal(tmp_path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "journal"))
    listener.settimeout(10)
    handler = Journal(str(tmp_path / "journal"))
    logger = logging.Logger("schedulerd.test")  # noqa: LOG001 - the root's handlers are pytest's
    logger.addHandler(handler)
    yield logger, listener
    handler.close()
    listener.close()


def test_a_record_has_its_priority_and_what_it_is_about(journal):
    logger, listener = journal
    logger.warning("job %s: run %s %s: %s", "backup", "0190", "failed", "exit code 3")
    fields = fields_of(listener.recv(65536))

    assert fields["MESSAGE"] == "job backup: run 0190 failed: exit code 3"
    assert (fields["PRIORITY"], fields["JOB_ID"], fields["RUN_ID"]) == ("4", "backup", "0190")
    assert (fields["SYSLOG_IDENTIFIER"], fields["LOGGER"]) == ("schedulerd", "schedulerd.test")
    assert fields["CODE_FUNC"] == "test_a_record_has_its_priority_and_what_it_is_about"


def test_what_a_job_printed_forges_no_field(journal):
    logger, listener = journal
    logger.error("job %s: %s", "a\nPRIORITY=0", "x\nMESSAGE=forged\n\x1b[2J")
    fields = fields_of(listener.recv(65536))

    assert fields["PRIORITY"] == "3"
    assert fields["MESSAGE"] == r"job a\nPRIORITY=0: x\nMESSAGE=forged\n\x1b[2J"
    assert fields["JOB_ID"] == "a\nPRIORITY=0"


def test_a_traceback_is_in_the_record_of_its_message(journal):
    logger, listener = journal
    try:
        raise ValueError("why")
    except ValueError:
        logger.exception("it stumbled")

    assert fields_of(listener.recv(65536))["MESSAGE"].splitlines()[-1] == "ValueError: why"


def test_a_journal_that_went_away_costs_no_record(capsys, journal):
    logger, listener = journal
    listener.close()
    logger.error("job %s: still told", "a")

    assert "<3>job a: still told" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "arguments", "found"),
    [
        ("run %s of job %s: cancelled", ("r", "j"), {"RUN_ID": "r", "JOB_ID": "j"}),
        ("%d runs, 100%% of job %s", (3, "j"), {"JOB_ID": "j"}),
        ("no job here", (), {}),
        ("the cronjob %s", ("x",), {}),
    ],
)
def test_a_message_says_which_job_and_run_it_is_about(text, arguments, found):
    record = logging.LogRecord("n", logging.INFO, "p", 1, text, arguments, None)

    assert dict(subjects(record)) == found


def test_elsewhere_records_go_to_stderr(capfd, monkeypatch):
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    before = logging.getLogger().handlers[:]
    try:
        set_up()
        logging.getLogger("schedulerd").info("hello")
    finally:
        logging.getLogger().handlers[:] = before

    assert "INFO    hello" in capfd.readouterr().err
    assert os.environ.get("JOURNAL_STREAM") is None
