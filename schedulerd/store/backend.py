"""The writing side of a database as the writer sees it, and how changes are made in it so that a refused one fails alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from ..core.errors import PartlyWrittenError, StoreAwayError, StoreError
from .changes import Change, FinishRuns, RecordRuns, without_texts

log = logging.getLogger(__name__)

PendingChange = tuple[Change, "Future[Any]"]


class Database(Protocol):
    """The writing side of a database; used by one thread at a time."""

    def open(self) -> None:
        """Connect, and migrate. Raise StoreAwayError when that may be possible later, StoreError when not."""
        ...

    def apply(self, changes: Sequence[Change]) -> list[Any]:
        """Make changes in one transaction, in their order, and return the result of each when they are durable.

        Without any, write something all the same, which changes nothing: whether that can be is the question then.

        Raise StoreAwayError when the database is away: they may have been made all the same, and are safe to make again.
        Any other error says that one of them cannot be made; then none of them was.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def apply_each(database: Database, changes: Sequence[Change]) -> list[Any]:
    """Make changes; return the result of each, or a StoreError for one that the database refuses. Raise StoreAwayError."""
    try:
        return database.apply(changes)
    except StoreAwayError:
        raise
    except Exception as error:  # whatever a change raises must not end the thread
        if len(changes) == 1:
            return [_refused(database, changes[0], error)]
    return _one_by_one(database, changes)


def _one_by_one(database: Database, changes: Sequence[Change]) -> list[Any]:
    found: list[Any] = []
    for change in changes:
        try:
            found += apply_each(database, [change])
        except StoreAwayError as error:
            error.is_unclear = error.is_unclear or bool(found)
            raise
    return found


def _refused(database: Database, change: Change, error: Exception) -> Any:
    """Return the error; of ends, which nobody can tell again, what comes of writing them without their texts.

    Of a group of rows, each is tried alone: one that is refused must not cost the others theirs.
    """
    if isinstance(change, RecordRuns) and len(change.runs) > 1:
        return _each_row(database, change, error)
    log.error("the store refused a change: %s", error)
    if isinstance(change, FinishRuns) and change != without_texts(change):
        return apply_each(database, [without_texts(change)])[0]
    return StoreError(f"the store refused a change: {error}")


def _each_row(database: Database, change: RecordRuns, error: Exception) -> frozenset[str] | StoreError:
    alone = [RecordRuns([run], change.asks) for run in change.runs]
    answers = _one_by_one(database, alone)
    taken = frozenset[str]().union(*(each for each in answers if not isinstance(each, StoreError)))
    refused = [one.runs[0].run_id for one, each in zip(alone, answers, strict=True) if isinstance(each, StoreError)]
    return PartlyWrittenError(f"the store refused a change: {error}", taken, frozenset(refused)) if refused else taken


def resolve(items: Sequence[PendingChange], results: Sequence[Any]) -> None:
    """Give each change its result, or its error; one that has an answer (from the outage journal) keeps that."""
    for (_, future), result in zip(items, results, strict=True):
        if future.done():
            continue
        if isinstance(result, StoreError):
            future.set_exception(result)
        else:
            future.set_result(result)


def reject(items: Sequence[PendingChange], error: StoreError) -> None:
    """Let changes fail."""
    resolve(items, [error] * len(items))
