"""The database behind the write side of a store, and how changes are applied so that a refused change fails alone."""

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
    """A database that changes are applied to; used by one thread at a time."""

    def open(self) -> None:
        """Connect and migrate. Raise StoreAwayError when a retry may succeed, StoreError otherwise."""
        ...

    def apply(self, changes: Sequence[Change]) -> list[Any]:
        """Apply changes in one transaction, in order, and return the result of each once they are durable.

        Without changes, write something that changes nothing, to test whether the database can be written.

        Raise StoreAwayError when the database cannot be written now. The changes may have been applied nevertheless, and
        can safely be applied again. Any other error means that one of them was refused; then none was applied.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def apply_each(database: Database, changes: Sequence[Change]) -> list[Any]:
    """Apply changes; return the result of each, a StoreError for a refused one. Raise StoreAwayError."""
    try:
        return database.apply(changes)
    except StoreAwayError:
        raise
    except Exception as error:  # no error of a change may end the thread
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
    """Return the error of a refused change. Ends, which no one can report again, are written without their texts instead.

    Of a group of rows, each is tried alone: a refused row must not affect the others.
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
    """Complete the futures of changes. One that the outage journal has completed already stays as it is."""
    for (_, future), result in zip(items, results, strict=True):
        if future.done():
            continue
        if isinstance(result, StoreError):
            future.set_exception(result)
        else:
            future.set_result(result)


def reject(items: Sequence[PendingChange], error: StoreError) -> None:
    """Fail the futures of changes."""
    resolve(items, [error] * len(items))
