"""Records in the journal have their fields, and each is one."""

import logging
import os
import re
import socket
import struct
import threading
from contextlib import contextmanager, suppress

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


def test_a_journal_that_takes_nothing_is_not_waited_for_and_told_what_it_missed(journal):
    logger, listener = journal
    for number in range(20_000):
        logger.info("message %d", number)
    (handler,) = logger.handlers
    assert "lost" in handler.trouble
    listener.setblocking(False)
    found = []
    for is_last in (False, True):
        with suppress(BlockingIOError):
            while True:
                found.append(fields_of(listener.recv(65536)))
                handler.flush()
        if not is_last:
            logger.info("the last one")
    texts = [fields["MESSAGE"] for fields in found]

    assert texts[:1000] == [f"message {number}" for number in range(1000)]
    assert texts[-1] == "the last one"
    assert re.fullmatch(r"\d+ messages lost here: nobody read the log", texts[-2])
    assert int(texts[-2].split()[0]) == 20_000 - (len(texts) - 2)
    assert handler.trouble is None


def test_what_waits_for_a_busy_journal_is_passed_on_at_the_end(journal):
    logger, listener = journal
    for number in range(1000):
        logger.info("message %d", number)
    (handler,) = logger.handlers
    assert handler.outlet.kept
    closing = threading.Thread(target=handler.close)
    closing.start()
    texts = [fields_of(listener.recv(65536))["MESSAGE"] for _ in range(1000)]
    closing.join()

    assert texts[-1] == "message 999"


def test_a_record_that_cannot_be_formatted_is_told_in_a_record(journal):
    logger, listener = journal
    logger.info("%d of 100%%", "many")

    assert "cannot be formatted: '%d of 100%%'" in fields_of(listener.recv(65536))["MESSAGE"]


def test_a_traceback_that_comes_again_is_one_line(journal):
    logger, listener = journal

    def fail(text):
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("job %s: it stumbled", "a")

    fail("why")
    fail("why now")

    assert "Traceback" in fields_of(listener.recv(65536))["MESSAGE"]
    again = fields_of(listener.recv(65536))
    assert again["MESSAGE"] == "job a: it stumbled: ValueError: why now"
    assert again["PRIORITY"] == "3"


def test_an_error_that_a_library_tells_every_second_is_told_now_and_then(capfd, monkeypatch):
    with logging_set_up(monkeypatch):
        for _ in range(100):
            try:
                raise OSError("too many open files")
            except OSError:
                logging.getLogger("asyncio").exception("socket.accept() out of system resource")

    assert capfd.readouterr().err.count("out of system resource") == 1


def test_the_end_of_a_thread_by_an_error_is_in_the_log(capfd, monkeypatch):
    with logging_set_up(monkeypatch):
        thread = threading.Thread(target=lambda: 1 / 0, name="worker")
        thread.start()
        thread.join()
    told = capfd.readouterr().err

    assert "CRITICAL the thread worker has ended" in told
    assert "ZeroDivisionError" in told


@contextmanager
def logging_set_up(monkeypatch):
    """Log as the daemon does when no journal is there."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    asyncio = logging.getLogger("asyncio")
    before, filters = logging.getLogger().handlers[:], asyncio.filters[:]
    try:
        set_up()
        yield
    finally:
        logging.getLogger().handlers[:] = before
        asyncio.filters[:] = filters


def test_elsewhere_records_go_to_stderr(capfd, monkeypatch):
    with logging_set_up(monkeypatch):
        logging.getLogger("schedulerd").info("hello")

    assert "INFO    hello" in capfd.readouterr().err
    assert os.environ.get("JOURNAL_STREAM") is None
