"""The outage journal: what was appended whole is read back in order, after any crash, and nothing else is."""

import os
import stat
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedulerd.core.clock import SystemClock
from schedulerd.store.changes import RecordRuns
from schedulerd.store.outage_journal import OutageJournal, OutageJournalError
from schedulerd.store.outage_spool import OutageSpool
from tests.support.builders import NOON, a_run

SIZE = 512 * 1024
GROUPS = st.lists(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5), min_size=1, max_size=8)


def opened(folder, size=SIZE):
    return OutageJournal(str(folder / "outage.journal"), size)


def filled(folder, groups):
    """Make a journal with groups of records, and return where they end."""
    journal = opened(folder)
    for group in groups:
        journal.append(group, NOON)
    journal.close()
    return journal.backlog.size_bytes


def read(journal):
    return [record for _place, record in journal.records()]


def test_records_are_there_in_order_after_a_restart(tmp_path):
    journal = opened(tmp_path)
    journal.append([b"one", b"two"], NOON)
    journal.append([b"three"], NOON)
    journal.close()

    again = opened(tmp_path)
    assert read(again) == [b"one", b"two", b"three"]
    assert (again.backlog.changes, again.backlog.since) == (3, NOON)


def test_the_place_is_reserved_and_private_from_the_first_moment(tmp_path):
    journal = opened(tmp_path)

    found = os.stat(journal.path)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_blocks * 512 >= SIZE


@given(groups=GROUPS, cut=st.integers(0, 2000), after=GROUPS)
@settings(deadline=None)
def test_a_tail_that_was_cut_or_damaged_is_left_out_and_written_over(tmp_path_factory, groups, cut, after):
    folder = tmp_path_factory.mktemp("journal")
    end = filled(folder, groups)
    with open(folder / "outage.journal", "r+b") as file:
        file.seek(max(0, end - cut))
        file.write(bytes(100) if cut % 2 else b"\xff" * 100)

    again = opened(folder)
    written = [record for group in groups for record in group]
    kept = read(again)
    assert kept == written[: len(kept)]
    for group in after:
        again.append(group, NOON)
    again.close()
    assert read(opened(folder)) == kept + [record for group in after for record in group]


@given(groups=GROUPS, place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(deadline=None)
def test_a_flipped_bit_hides_nothing_unsaid(tmp_path_factory, groups, place, bit):
    folder = tmp_path_factory.mktemp("journal")
    end = filled(folder, groups)
    assert not opened(folder).is_cut
    with open(folder / "outage.journal", "r+b") as file:
        file.seek(int(place * end))
        (byte,) = file.read(1)
        file.seek(int(place * end))
        file.write(bytes([byte ^ 1 << bit]))
        file.seek(0)
        damaged = file.read()

    again = opened(folder)
    kept = read(again)
    assert again.is_cut or kept == [record for group in groups for record in group]
    aside = again.keep_copy(NOON)
    with open(aside, "rb") as file:
        assert file.read() == damaged
    assert stat.S_IMODE(os.stat(aside).st_mode) == 0o600
    again.close()
    assert not opened(folder).is_cut
    assert read(opened(folder)) == kept


@given(fillings=st.lists(GROUPS, min_size=1, max_size=4))
@settings(deadline=None)
def test_after_it_was_emptied_nothing_of_before_comes_back(tmp_path_factory, fillings):
    folder = tmp_path_factory.mktemp("journal")
    for number, groups in enumerate(fillings):
        journal = opened(folder)
        journal.empty()
        for group in groups:
            journal.append(group, NOON.replace(microsecond=number))
        journal.close()

        assert read(opened(folder)) == [record for group in groups for record in group]


def test_a_full_journal_says_so_and_keeps_a_reserve_for_ends(tmp_path):
    journal = opened(tmp_path)
    while journal.backlog.size_bytes < SIZE * 0.9 - 2000:
        journal.append([b"x" * 1000], NOON)
    with pytest.raises(OutageJournalError, match=r"is full: .*outage_journal makes it larger"):
        journal.append([b"x" * 3000], NOON)
    count = journal.backlog.changes

    journal.append([b"an end"], NOON, may_use_reserve=True)
    assert journal.backlog.changes == count + 1
    assert read(journal)[-1] == b"an end"


def test_a_group_that_could_not_be_written_leaves_nothing_behind_the_next_one(tmp_path, monkeypatch):
    journal = opened(tmp_path)
    journal.append([b"kept"], NOON)

    def broken(_file):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(OutageJournalError, match="Input/output error"):
            journal.append([b"aaaa", b"bbbb"], NOON)
    journal.append([b"cccc"], NOON)
    journal.close()

    assert read(opened(tmp_path)) == [b"kept", b"cccc"]


def test_a_file_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "theirs").write_text("x")
    (tmp_path / "outage.journal").symlink_to(tmp_path / "theirs")

    with pytest.raises(OutageJournalError, match="cannot be used"):
        opened(tmp_path)


FULL_DISK = """
import sys
from datetime import datetime, UTC
from schedulerd.store.outage_journal import OutageJournal
journal = OutageJournal(sys.argv[1] + "/outage.journal", 1 << 20)
try:
    with open(sys.argv[1] + "/filler", "wb") as filler:
        while True:
            filler.write(bytes(4096))
            filler.flush()
except OSError as error:
    print(error.strerror)
for number in range(500):
    journal.append([str(number).encode() * 100], datetime.now(UTC))
print(len([1 for _ in OutageJournal(journal.path, 1 << 20).records()]))
"""


@pytest.mark.root("mounting needs root")
def test_it_can_be_written_when_its_disk_is_full(tmp_path):
    script = f"mount -t tmpfs -o size=2m tmpfs {tmp_path} && exec {sys.executable} -c '{FULL_DISK}' {tmp_path}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)

    assert done.stdout == "No space left on device\n500\n", done.stderr


def test_a_journal_that_is_damaged_while_it_is_used_is_copied_told_and_left_behind(tmp_path):
    journal = OutageJournal(str(tmp_path / "j"), SIZE)
    spool = OutageSpool(journal, SystemClock())
    spool.accept([RecordRuns((a_run(),))])
    with (tmp_path / "j").open("r+b") as file:
        file.seek(30)
        file.write(b"\xff\xff")
    changes, place = spool.next_group(10)
    spool.applied(place)

    assert (changes, spool.backlog.changes) == ([], 0)
    assert "j.damaged-" in spool.alarm
    spool.close()


def test_what_an_error_left_behind_is_never_read_and_is_cleared_when_that_is_possible(tmp_path, monkeypatch):
    journal = opened(tmp_path)
    journal.append([b"kept"], NOON)
    real = os.fdatasync

    def broken(_file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(OutageJournalError):
        journal.append([b"lost"], NOON)
    assert (read(journal), journal.is_untidy) == ([b"kept"], True)
    with pytest.raises(OutageJournalError):
        journal.empty()
    assert (read(journal), journal.backlog.changes) == ([], 0)
    monkeypatch.setattr(os, "fdatasync", real)
    journal.tidy()
    assert not journal.is_untidy
    assert read(opened(tmp_path)) == []
    journal.append([b"fresh"], NOON)
    assert read(opened(tmp_path)) == [b"fresh"]
