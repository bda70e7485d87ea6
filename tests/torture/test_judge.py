"""What the judge says about books and rows that are made up."""

from dataclasses import replace

import pytest

from tests.torture.books import Books, End, Start
from tests.torture.judge import Case, judge
from tests.torture.ledger import Row
from tests.torture.oracle import Once, Steps
from tests.torture.work import Work

BEGIN = 1_800_000_000
JOBS = {"tick": Work("tick", {}), "head": Work("head", {}, Once(())), "tail": Work("tail", {}, None, follows="head")}
CASE = Case(JOBS, BEGIN, BEGIN + 9)


def start(at, run=None, attempt=1, job="tick", begun=None):
    begun = at if begun is None else begun
    return Start(job, run or f"r{at}-{attempt}", at, attempt, "schedule", 1, 1, begun - BEGIN + 100.0, begun + 0.01)


def row(at, run=None, status="success", code=0, attempt=1, job="tick", message="", **details):
    return Row(run or f"r{at}-{attempt}", job, at, attempt, "schedule", status, at, code, message, details)


def found(books, rows, case=CASE):
    return sorted({fault.kind for fault in judge(case, books, rows).faults})


@pytest.fixture
def books():
    starts = [start(BEGIN + second) for second in range(10)]
    return Books(starts, {each.run_id: End(0, each.boot + 0.1) for each in starts})


@pytest.fixture
def rows():
    return [row(BEGIN + second) for second in range(10)]


def test_books_and_rows_that_agree_are_no_fault(books, rows):
    verdict = judge(CASE, books, rows)

    assert (verdict.due, verdict.starts, verdict.rows, verdict.faults) == (10, 10, 10, [])


def test_the_same_attempt_twice_is_a_double(books, rows):
    books.starts.append(start(BEGIN + 3, "again"))
    books.ends["again"] = End(0, 200.0)

    assert found(books, [*rows, replace(row(BEGIN + 3, "again"), at=None)]) == ["DOUBLE"]


@pytest.mark.parametrize("begun", [0.05, 5.0])
def test_an_attempt_beside_a_run_or_after_its_success_is_a_double(books, rows, begun):
    books.starts.append(start(BEGIN + 3, attempt=2, begun=BEGIN + 3 + begun))
    books.ends[f"r{BEGIN + 3}-2"] = End(0, 200.0)

    assert found(books, [*rows, row(BEGIN + 3, attempt=2)]) == ["DOUBLE"]


def test_what_was_due_and_nobody_knows_is_a_silent_miss(books, rows):
    del books.starts[4]

    assert found(books, [each for each in rows if each.at != BEGIN + 4]) == ["SILENT_MISS"]


def test_a_row_of_a_gap_tells_of_all_that_is_in_it(books, rows):
    gap = {"first": "2027-01-15T08:00:02Z", "last": "2027-01-15T08:00:05Z", "count": 4}
    books.starts = [each for each in books.starts if not 2 <= each.at - BEGIN <= 5]
    left = [each for each in rows if not 2 <= each.at - BEGIN <= 5]

    assert found(books, [*left, row(BEGIN + 5, "gap", "missed", None, **gap)]) == []


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        ("failed", 1, "", "LOST_ROW"),
        ("abandoned", None, "how it ended was not seen", "LOST_ROW"),
        ("abandoned", None, "it was never started", "FALSE_NEVER_STARTED"),
        ("missed", None, "", "FALSE_NEVER_STARTED"),
        ("running", None, "", "STUCK"),
    ],
)
def test_a_row_that_is_wrong_about_a_run_is_a_fault(books, rows, status, code, message, kind):
    rows[4] = row(BEGIN + 4, status=status, code=code, message=message)

    assert found(books, rows) == [kind]


def test_an_end_that_a_keeper_took_with_it_may_be_unknown(books, rows):
    rows[4] = row(BEGIN + 4, status="abandoned", code=None, message="how it ended was not seen")
    died = books.starts[4].boot

    assert found(books, rows, replace(CASE, losses=[(died, died)])) == []
    assert found(books, rows, replace(CASE, losses=[(died + 5, died + 5)])) == ["LOST_ROW"]


def test_a_start_without_a_row_is_a_lost_row(books, rows):
    del rows[4]

    assert found(books, rows) == ["LOST_ROW"]


def test_a_start_that_nothing_made_due_is_a_phantom(books, rows):
    books.starts.append(start(BEGIN + 4.5))
    books.ends[f"r{BEGIN + 4.5}-1"] = End(0, 200.0)

    assert found(books, [*rows, row(BEGIN + 4.5)]) == ["PHANTOM"]


def test_a_success_that_is_in_no_book_is_a_phantom(books, rows):
    assert found(books, [*rows, row(BEGIN + 4, "ghost")]) == ["PHANTOM"]


def test_a_start_before_its_time_is_early_unless_that_was_reached_before(books, rows):
    books.starts[4] = replace(books.starts[4], wall=BEGIN + 3.9)

    assert found(books, rows) == ["EARLY"]
    assert found(books, rows, replace(CASE, steps=[(books.starts[4].boot - 1, BEGIN + 6.0)])) == []


def test_an_end_that_nothing_followed_is_a_silent_miss(books, rows):
    books.starts.append(start(BEGIN + 2, "h", job="head"))
    books.ends["h"] = End(0, 102.5)
    head = row(BEGIN + 2, "h", job="head")
    jobs = {**JOBS, "head": Work("head", {}, Steps(100))}
    case = replace(CASE, jobs=jobs)

    assert "SILENT_MISS" in found(books, [*rows, head], case)


def test_the_oracle_counts_as_a_clock_does():
    assert list(Steps(5).times(11, 25)) == [15, 20, 25]
    assert list(Steps(1).times(10.2, 12.9)) == [11, 12]
    assert not Steps(2).knows(11)
    assert Once((7,)).times(0, 9) == [7]
