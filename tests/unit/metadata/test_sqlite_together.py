"""Writes that stand in the queue of one SQLite store together: one transaction, each its own outcome."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from woodpecker.errors import Conflict, OutcomeUnknown, WoodpeckerError
from woodpecker.metadata.base import Record
from woodpecker.metadata.sqlite import SqliteMetadata
from woodpecker.runtime.runtime import SystemRuntime

COUNT = 40


class Connection:
    """Stands before a connection; a statement that begins with a text of ``fails`` raises that error, once."""

    def __init__(self, db):
        self.db = db
        self.statements = []
        self.fails = {}

    def execute(self, statement, *arguments):
        self.statements.append(statement)
        for text in [text for text in self.fails if statement.startswith(text)]:
            raise self.fails.pop(text)
        return self.db.execute(statement, *arguments)

    def __getattr__(self, name):
        return getattr(self.db, name)

    def count(self, text):
        return sum(statement.startswith(text) for statement in self.statements)


@pytest.fixture
async def store(tmp_path):
    store = SqliteMetadata(tmp_path / "metadata.db", SystemRuntime())
    yield store
    await store.close()


@pytest.fixture
async def connection(store):
    await store.put("first", b"", expect=None)
    store._database._db = connection = Connection(store._database._db)
    return connection


def _error(code):
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    return error


async def _put_all(store, value=b"one"):
    puts = [store.put(f"key/{number:03}", value, expect=None) for number in range(COUNT)]
    return await asyncio.gather(*puts, return_exceptions=True)


async def test_they_share_transactions(store, connection):
    versions = await _put_all(store)
    assert len(set(versions)) == COUNT
    assert versions == sorted(versions, key=int)
    assert 1 <= connection.count("COMMIT") <= COUNT / 2
    assert [record.version for record in await store.list("key/")] == versions


async def test_a_conflict_is_of_one_alone_and_reads_see_what_is_before_them(store, connection):
    calls = []
    for number in range(COUNT):
        key = f"key/{number // 2}"
        calls += [store.put(key, b"%d" % number, expect=None), store.get(key)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for number in range(0, 2 * COUNT, 4):
        first, read, second, again = outcomes[number : number + 4]
        assert isinstance(first, str)
        assert isinstance(second, Conflict)
        assert second.actual == first
        key = f"key/{number // 4}"
        assert read == again == Record(key=key, value=b"%d" % (number // 2), version=first)


async def test_when_the_commit_fails_nothing_is_known_of_writes_and_reads_are_made_again(
    store, connection
):
    connection.fails["COMMIT"] = _error(sqlite3.SQLITE_IOERR)
    *outcomes, read = await asyncio.gather(
        *[store.put(f"key/{number}", b"one", expect=None) for number in range(COUNT)],
        store.get("key/0"),
        return_exceptions=True,
    )
    unknown = [number for number, each in enumerate(outcomes) if isinstance(each, OutcomeUnknown)]
    assert len(unknown) > 1
    for number, outcome in enumerate(outcomes):
        found = await store.get(f"key/{number}")
        assert (None if found is None else found.version) == (
            None if number in unknown else outcome
        )
    assert not isinstance(read, BaseException)
    assert await store.put(f"key/{unknown[0]}", b"two", expect=None)


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT"])
async def test_when_it_comes_to_nothing_each_is_done_by_itself(store, connection, statement):
    connection.fails[statement] = _error(sqlite3.SQLITE_FULL)
    outcomes = await _put_all(store)
    assert (
        sum(isinstance(each, WoodpeckerError) for each in outcomes) <= 1
    )  # met alone, at the head
    for number, outcome in enumerate(outcomes):
        found = await store.get(f"key/{number:03}")
        assert isinstance(outcome, WoodpeckerError) or outcome == found.version


async def test_what_cannot_be_rolled_back_is_taken_for_nothing_else(store, connection):
    connection.fails["INSERT"] = _error(sqlite3.SQLITE_IOERR)
    connection.fails["ROLLBACK"] = _error(sqlite3.SQLITE_IOERR)
    outcomes = await _put_all(store)
    assert (
        sum(isinstance(each, WoodpeckerError) for each in outcomes) <= 1
    )  # met alone, at the head
    other = SqliteMetadata(store._path, SystemRuntime())
    there = {record.key: record.version for record in await other.list("key/")}
    told = {f"key/{n:03}": each for n, each in enumerate(outcomes) if isinstance(each, str)}
    assert there == told
    await other.close()


async def test_after_what_could_not_be_rolled_back_the_store_is_opened_anew(store, connection):
    connection.fails["INSERT"] = _error(sqlite3.SQLITE_IOERR)
    connection.fails["ROLLBACK"] = _error(sqlite3.SQLITE_IOERR)
    await _put_all(store)
    for number in range(3):
        puts = [store.put(f"again/{number}/{n}", b"two", expect=None) for n in range(COUNT)]
        assert len(set(await asyncio.wait_for(asyncio.gather(*puts), 60))) == COUNT


async def test_what_goes_wrong_beside_the_calls_is_told_to_all_of_them(store, connection):
    def fail(_jobs):
        raise RuntimeError("a bug")

    store._worker._together = fail
    outcomes = await asyncio.wait_for(_put_all(store), 20)
    assert any(isinstance(each, RuntimeError) for each in outcomes)
    assert await asyncio.wait_for(store.get("first"), 20)
