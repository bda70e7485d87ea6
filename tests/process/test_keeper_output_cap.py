"""An output stays below its limit, also when its run erases it, or leaves something behind that writes on."""

import os
from pathlib import Path

import pytest

from schedulerd.process.keeper.output_cap import BLOCK, OutputCap

LIMIT = 16 * BLOCK
FLOOD = b"x" * (20 * LIMIT)


@pytest.fixture
def capping():
    made = OutputCap()
    yield made
    os.close(made.descriptor)


@pytest.fixture
def output(tmp_path):
    """A file as a child has it, open for appending; closing it is up to the test."""
    with open(tmp_path / "out", "ab", buffering=0) as file:
        yield file


def is_capped(file):
    return os.stat(file.name).st_blocks * 512 <= LIMIT + LIMIT // 4


def watches(capping):
    return Path(f"/proc/self/fdinfo/{capping.descriptor}").read_text().count("inotify wd:")


def test_a_flood_is_cut_in_its_middle(capping, output):
    capping.watch("r", output.name, LIMIT)
    output.write(b"first" + FLOOD + b"last")

    assert capping.check() == []
    assert is_capped(output)
    assert Path(output.name).read_bytes()[:5] == b"first"
    assert Path(output.name).read_bytes()[-4:] == b"last"
    assert capping.end("r", keeps_leftovers=False) == ([], [])


@pytest.mark.parametrize("again", [FLOOD[: len(FLOOD) * 3 // 4], FLOOD])
def test_an_output_that_was_erased_is_capped_again(capping, output, again):
    capping.watch("r", output.name, LIMIT)
    output.write(FLOOD)
    capping.check()
    with open(output.name, "wb"):  # as `: > /dev/stdout` does
        capping.check()
    output.write(again)
    capping.check()

    assert is_capped(output)
    assert capping.end("r", keeps_leftovers=False) == (["erased"], [])


def test_without_a_limit_it_is_still_seen_that_an_output_was_erased(capping, output):
    capping.watch("r", output.name, None)
    output.write(b"all of it")
    capping.check()
    os.truncate(output.name, 3)

    assert capping.end("r", keeps_leftovers=False) == (["erased"], [])


def test_what_a_run_has_left_is_capped_until_the_last_of_it_is_gone(capping, output):
    with open(output.name, "ab", buffering=0) as left:
        capping.watch("r", output.name, LIMIT)
        capping.end("r", keeps_leftovers=True)
        output.close()
        capping.check()
        left.write(FLOOD)
        capping.check()

        assert is_capped(left)
        assert watches(capping) == 1
    capping.check()
    assert watches(capping) == 0


@pytest.mark.parametrize("keeps_leftovers", [True, False])
def test_when_nothing_writes_any_more_it_is_not_watched(capping, output, keeps_leftovers):
    capping.watch("r", output.name, LIMIT)
    output.close()
    capping.end("r", keeps_leftovers)

    assert watches(capping) == 0


def test_a_file_that_is_taken_away_is_forgotten(capping, output):
    capping.watch("r", output.name, LIMIT)
    capping.end("r", keeps_leftovers=True)
    os.unlink(output.name)
    output.close()
    capping.check()

    assert capping._by_watch == {}
