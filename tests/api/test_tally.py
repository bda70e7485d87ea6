"""What is told in sum: the first at once, the others when the minute is over."""

import asyncio

from schedulerd.api.auth import _log_failed
from schedulerd.api.connections.limits import _log_closed
from schedulerd.api.connections.tally import MOST_NAMED, Tally


def test_the_first_is_told_at_once_and_the_sum_with_whose_it_was_when_the_minute_is_over():
    async def told():
        said = asyncio.Queue()
        tally = Tally(lambda *what: said.put_nowait(what), seconds=0.01)
        firsts = [tally.add(whose) for whose in ("a", "b", "b")]
        return firsts, await said.get(), tally.add("c"), await said.get()

    assert asyncio.run(told()) == ([True, False, False], (3, [("b", 2), ("a", 1)]), False, (1, [("c", 1)]))


def test_of_many_only_some_are_named_and_all_are_counted(caplog):
    async def told():
        said = asyncio.Queue()
        tally = Tally(lambda *what: said.put_nowait(what), seconds=0.01)
        for number in range(MOST_NAMED + 50):
            tally.add(f"192.0.2.{number}")
        return await said.get()

    count, found = asyncio.run(told())
    assert (count, len(found)) == (MOST_NAMED + 50, MOST_NAMED)
    _log_failed(count, found)
    assert len(caplog.messages) == 6
    assert caplog.messages[0] == "api: 1 failed login from 192.0.2.0 in the last minute"
    assert caplog.messages[-1] == f"api: {count - 5} failed logins from other addresses in the last minute"


def test_one_alone_is_told_once():
    async def told():
        said = []
        tally = Tally(lambda *what: said.append(what), seconds=0)
        tally.add("a")
        for _ in range(10):
            await asyncio.sleep(0)
        return said

    assert asyncio.run(told()) == []


def test_who_was_closed_most_is_named(caplog):
    for found in ([("127.0.0.4", 178), ("uid 0", 2)], [("uid 0", 180)], [("", 180)]):
        _log_closed(180, found)

    assert caplog.messages == [
        f"api: closed or refused 180 connections in the last minute, {words}"
        for words in ("178 of 127.0.0.4", "180 of root (uid 0)", "180 of a trusted proxy")
    ]
