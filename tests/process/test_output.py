"""Output is read as it was written, never from the hole that a limit makes, and never with a secret in it."""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulerd.core.models import Secret, new_run_id
from schedulerd.process.output import Chunk, OutputFolder, OutputRange, OutputStats
from schedulerd.process.output_reader import OutputReader
from schedulerd.secrets.forms import SHORTEST_MASKED, forms_of
from schedulerd.secrets.job_secrets import known_secrets
from schedulerd.secrets.masking import Mask, masked_output
from tests.support.builders import NOON, a_job

BLOCK = 4096
KEEP_SIZE, PUNCH_HOLE = 1, 2
RUN = new_run_id(NOON)


def punch(path, start, length):
    """Make a hole in a file, or skip the test where its file system cannot."""
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    with open(path, "r+b") as file:
        if fallocate(file.fileno(), KEEP_SIZE | PUNCH_HOLE, start, length) != 0:
            pytest.skip(f"no holes here: {os.strerror(ctypes.get_errno())}")


@pytest.fixture
def folder(tmp_path):
    return OutputFolder(str(tmp_path / "output"))


def written(folder, data):
    with open(folder.make(RUN), "wb") as file:
        file.write(data)
    return folder.path_of(RUN)


@pytest.fixture
def holed(folder):
    """Ten blocks of letters, of which the third to the seventh are gone."""
    path = written(folder, b"".join(bytes([65 + number]) * (BLOCK - 1) + b"\n" for number in range(10)))
    punch(path, 2 * BLOCK, 5 * BLOCK)
    return folder


def test_without_a_file_there_is_nothing_to_read(folder):
    assert folder.read(RUN, 7, 100) == Chunk(b"", 7)
    assert (folder.size(RUN), folder.stats(RUN), folder.tail(RUN), folder.settle(RUN)) == (0, OutputStats(0), "", 0)


@pytest.mark.parametrize(
    ("offset", "most", "chunk"),
    [(0, 3, Chunk(b"\x00\xff\n", 3)), (2, 99, Chunk(b"\nx", 4)), (4, 1, Chunk(b"", 4)), (99, 1, Chunk(b"", 99))],
)
def test_bytes_are_read_as_they_are(folder, offset, most, chunk):
    written(folder, b"\x00\xff\nx")

    assert folder.read(RUN, offset, most) == chunk


def test_a_read_ends_before_the_hole_and_the_next_begins_after_it(holed):
    first = holed.read(RUN, BLOCK, 10 * BLOCK)
    second = holed.read(RUN, first.next_offset, 10 * BLOCK)

    assert first == Chunk(b"B" * (BLOCK - 1) + b"\n", 2 * BLOCK)
    assert (second.data[:1], second.next_offset, second.dropped) == (b"H", 10 * BLOCK, 5 * BLOCK)
    assert holed.read(RUN, 4 * BLOCK + 1, 1) == Chunk(b"H", 7 * BLOCK + 1, 3 * BLOCK - 1)
    assert holed.range_at(RUN, 3 * BLOCK) == OutputRange(7 * BLOCK, 10 * BLOCK, 10 * BLOCK)


def test_what_was_dropped_is_counted_and_the_size_is_the_whole(holed):
    assert holed.stats(RUN) == OutputStats(10 * BLOCK, 5 * BLOCK)
    assert (holed.size(RUN), holed.settle(RUN)) == (10 * BLOCK, 10 * BLOCK)


def test_the_tail_has_no_zeros(holed):
    tail = holed.tail(RUN, 6 * BLOCK)

    assert tail == "I" * (BLOCK - 1) + "\n" + "J" * (BLOCK - 1)  # the line after the gap may have lost its beginning
    assert holed.tail(RUN, 10) == "J" * 9
    with open(holed.path_of(RUN), "ab") as file:
        file.truncate(20 * BLOCK)
    assert holed.tail(RUN, BLOCK) == ""
    assert holed.read(RUN, 11 * BLOCK, 9) == Chunk(b"", 20 * BLOCK, 9 * BLOCK)


def test_a_link_in_place_of_the_output_is_not_followed(folder, tmp_path):
    (tmp_path / "secret").write_text("the shadow file")
    os.symlink(tmp_path / "secret", folder.make(RUN))

    assert folder.read(RUN, 0, 100) == Chunk(b"", 0)
    assert (folder.size(RUN), folder.settle(RUN), folder.is_gone(RUN)) == (0, 0, True)
    assert folder.instead(RUN) == "a link is in its place"
    assert os.path.islink(folder.path_of(RUN))


def test_a_link_in_place_of_the_folder_of_a_day_is_not_followed_and_set_aside(folder, tmp_path):
    day = os.path.dirname(folder.make(RUN))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / os.path.basename(folder.path_of(RUN))).write_text("of another place")
    os.rmdir(day)
    os.symlink(tmp_path / "elsewhere", day)

    assert folder.read(RUN, 0, 100) == Chunk(b"", 0)
    assert folder.instead(RUN) == "a link is in place of its day's folder"
    folder.make(RUN)
    assert os.path.isdir(day)
    assert not os.path.islink(day)


def read_all(reader, most):
    """Return what a reader shows, with the gaps as (offset, bytes dropped)."""
    shown, gaps = b"", []
    while True:
        piece = reader.read(most)
        if piece.dropped:
            gaps.append((reader.offset - len(piece.data), piece.dropped))
        shown += piece.data
        if piece.is_last:
            return shown + reader.flush(), gaps


@pytest.mark.parametrize("most", [1000, BLOCK, 100 * BLOCK])
def test_a_reader_goes_on_after_the_gap(holed, most):
    shown, gaps = read_all(OutputReader(holed, RUN, (), 0), most)

    assert (len(shown), shown.count(0), gaps) == (5 * BLOCK, 0, [(7 * BLOCK, 5 * BLOCK)])


def test_a_reader_begins_anew_when_the_run_has_erased_its_output(folder):
    path = written(folder, b"a first line, which may end in a hunter2-hun")
    reader = OutputReader(folder, RUN, (b"hunter2-hunter2",), 0)
    assert read_piece(reader) == b"a first line, which may end in a "
    with open(path, "wb") as file:
        file.write(b"three\n")

    assert reader.read(100).is_anew
    assert (read_piece(reader), reader.offset) == (b"three\n", 6)


def read_piece(reader):
    return reader.read(100).data


def test_a_secret_that_is_cut_off_by_the_gap_is_not_shown(folder):
    path = written(folder, b"a" * (2 * BLOCK - 6) + b"hunter2-hunter2" + b"b" * (4 * BLOCK))
    punch(path, 2 * BLOCK, 2 * BLOCK)
    shown, _gaps = read_all(OutputReader(folder, RUN, (b"hunter2-hunter2",), 0), BLOCK)

    assert b"hunter" not in shown
    assert shown[2 * BLOCK - 6 : 2 * BLOCK] == b"******"


# Secrets

ALPHABET = st.sampled_from(b"ab\n\xff")
TEXTS = st.lists(ALPHABET, max_size=60).map(bytes)
SECRETS = st.lists(st.lists(ALPHABET, min_size=4, max_size=9).map(bytes), max_size=3)


def stars(data, secrets):
    """Return what must be shown of `data`, found byte by byte."""
    shown = bytearray(data)
    for secret in secrets:
        for at in range(len(data)):
            rest = data[at:]
            if rest.startswith(secret) or (len(rest) >= SHORTEST_MASKED and secret.startswith(rest)):
                shown[at : at + len(secret)] = b"*" * len(rest[: len(secret)])
    return bytes(shown)


@given(TEXTS, SECRETS, st.lists(st.integers(0, 60), max_size=8))
def test_secrets_are_masked_wherever_the_chunks_end(data, secrets, cuts):
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    mask = Mask(secrets)
    shown = b"".join(mask.feed(data[a:b]) for a, b in pairwise(places)) + mask.flush()

    assert shown == stars(data, secrets)


@given(TEXTS, SECRETS, st.integers(0, 60), st.integers(1, 9))
def test_a_reader_that_begins_inside_a_secret_shows_nothing_of_it(tmp_path_factory, data, secrets, offset, most):
    folder = OutputFolder(str(tmp_path_factory.getbasetemp() / "inside"))
    written(folder, data)
    shown, _gaps = read_all(OutputReader(folder, RUN, secrets, offset), most)

    assert shown == stars(data, secrets)[offset:]


@given(TEXTS, SECRETS)
def test_what_is_cut_off_shows_no_piece_of_a_secret_at_its_ends(data, secrets):
    shown = masked_output(data, secrets, begins_cut=True, ends_cut=True)

    assert not [each for each in secrets for length in range(4, len(each)) if shown.startswith(each[-length:])]
    assert not [each for each in secrets for length in range(4, len(each)) if shown.endswith(each[:length])]


@given(TEXTS, SECRETS)
def test_no_secret_is_left_in_masked_text(data, secrets):
    shown = masked_output(data, secrets)

    assert not [secret for secret in secrets if secret in shown]
    assert shown == data or b"***" in shown


SECRET = b"SECRET-abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize("after", [0, 10, 20, 26, 27, 40])
def test_a_tail_that_begins_inside_a_secret_shows_nothing_of_it(folder, after):
    written(folder, b"x" * 500 + SECRET + b"y" * after + b"z" * 20)
    shown = folder.tail(RUN, 40, (SECRET,))

    assert not [each for each in range(len(SECRET) - 3) if SECRET[each : each + 4].decode() in shown]
    assert shown.endswith("y" * min(after, 20) + "z" * 20)


@pytest.mark.parametrize("most", [1, 5, BLOCK])
def test_behind_a_gap_and_at_the_end_no_piece_of_a_secret_is_shown(folder, most):
    path = written(folder, b"a" * (4 * BLOCK - 8) + SECRET + b"b" * 9 + SECRET[:12])
    punch(path, 0, 4 * BLOCK)
    shown, _gaps = read_all(OutputReader(folder, RUN, (SECRET,), 0), most)

    assert shown == b"*" * (len(SECRET) - 8) + b"b" * 9 + b"*" * 12
    assert folder.tail(RUN, 2 * BLOCK, (SECRET,)) == "***bbbbbbbbb***"


def test_masking_keeps_what_is_no_secret():
    assert masked_output(b"the password is hunter2, twice: hunter2", [b"hunter2"]) == b"the password is ***, twice: ***"


def test_what_may_go_on_to_be_a_secret_waits_and_nothing_else_does():
    mask = Mask([b"hunter2"])

    assert [mask.feed(each) for each in (b"ready\n", b"> hun", b"t for", b" hunter", b"2")] == [
        b"ready\n", b"> ", b"hunt for", b" ", b"*******",
    ]  # fmt: skip


def test_the_secrets_of_a_job_are_those_of_its_environment_and_the_passwords_of_sources(tmp_path, monkeypatch):
    monkeypatch.setenv("WORD", "hunter2")
    (tmp_path / "short").write_text("abc\n")
    env = {
        "A": Secret("env", "WORD"), "B": Secret("file", str(tmp_path / "short")), "C": Secret("env", "NO_SUCH"),
        "D": "plain text",
    }  # fmt: skip
    sources = [
        "postgresql://me:p%40ssword@db/x",
        "redis://localhost",
        "postgresql:///x?password=sesame",
        Secret("env", "NO"),
    ]

    assert known_secrets(a_job(env=env), sources) == forms_of(["hunter2", "p%40ssword", "p@ssword", "sesame"])
    assert known_secrets(None) == ()


def test_secrets_in_the_options_of_an_action_are_known_too(monkeypatch):
    monkeypatch.setenv("KEY", "sesame")
    job = a_job(
        action="http", options={"url": "http://localhost/", "headers": {"X-Key": Secret("env", "KEY")}, "body": None}
    )

    assert known_secrets(job) == forms_of(["sesame"])


def test_of_a_file_of_variables_long_values_and_passwords_are_known(tmp_path):
    (tmp_path / "env").write_text("LONG=12345678\nSHORT=1234567\nURL=redis://:word@h\n# NO='not a value'\n")
    (tmp_path / "bad").write_text("this line sets nothing\n")
    job = a_job(env_files=(str(tmp_path / "env"), str(tmp_path / "bad"), str(tmp_path / "missing")))

    assert known_secrets(job) == forms_of(["12345678", "redis://:word@h", "word"])


def test_a_file_where_the_folder_of_a_day_should_be_is_set_aside(tmp_path):
    folder = OutputFolder(str(tmp_path / "output"))
    run_id = new_run_id(NOON)
    day = tmp_path / "output" / folder.path_of(run_id).split("/")[-2]
    day.write_text("precious")

    assert os.path.isdir(os.path.dirname(folder.make(run_id)))
    (aside,) = tmp_path.glob("output/*.aside-*")
    assert aside.read_text() == "precious"


def test_several_who_ask_at_once_why_no_output_can_be_made_are_in_nobodys_way(folder):
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: folder.refusal(), range(2000)))

    assert found == {None}
