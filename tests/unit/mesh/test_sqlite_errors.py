"""What an error of SQLite means: a full disk passes, a failing one ends the process."""

import sqlite3

import pytest

from hub.store import end_if_broken
from mesh.errors import StoreBroken, StoreFull
from mesh.host.sqlite_errors import mapped


def error(code: int) -> sqlite3.OperationalError:
    made = sqlite3.OperationalError("as SQLite words it")
    made.sqlite_errorcode, made.sqlite_errorname = code, f"SQLITE_{code}"
    return made


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE])
def test_no_room_is_full(code: int) -> None:
    assert isinstance(mapped(error(code)), StoreFull)
    end_if_broken(error(code))


@pytest.mark.parametrize(
    "code",
    [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_WRITE,
     sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB],
)  # fmt: skip
def test_an_input_output_error_ends_the_process_and_names_the_file(code: int) -> None:
    ours = mapped(error(code), "cache.db")
    assert isinstance(ours, StoreBroken)
    assert str(ours).startswith("cache.db met an input/output error")
    with pytest.raises(StoreBroken, match=r"report\.db met an input/output error"):
        end_if_broken(error(code))


def test_a_wrong_statement_is_neither() -> None:
    assert mapped(error(sqlite3.SQLITE_ERROR)) is None
    end_if_broken(error(sqlite3.SQLITE_CONSTRAINT))
