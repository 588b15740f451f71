"""The tables, and the way to a database: SQLite in the hub's folder, or PostgreSQL by its URL; the same code for both."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from edgecl.types import ConfigError, StoreError

BUSY_SECONDS = 30
BIG = BigInteger().with_variant(Integer, "sqlite")

meta = MetaData()

tokens = Table(
    "tokens", meta,
    Column("hash", String(64), primary_key=True),  # SHA-256 of the token
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("uses", Integer, nullable=False),  # left
    Column("approve", Integer, nullable=False),  # 1: who has it needs no operator
    Column("note", String(200), nullable=False),
)  # fmt: skip

devices = Table(
    "devices", meta,
    Column("id", String(16), primary_key=True),
    Column("public_key", LargeBinary(32), nullable=False),
    Column("token", String(64), nullable=False),  # hash of the one that it enrolled with
    Column("name", String(100), nullable=False),
    Column("machine", String(40), nullable=False),
    Column("edgecl", String(40), nullable=False),
    Column("state", String(10), nullable=False, index=True),  # pending, approved, revoked
    Column("created", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    Column("model", Integer, nullable=False, default=0),  # number that it said it has
    Column("health", String(200), nullable=False, default=""),
    Column("reported", Text, nullable=False, default="{}"),  # its last report, JSON
    Column("bytes", BigInteger, nullable=False, default=0),  # of its updates, ever
)  # fmt: skip

updates = Table(
    "updates", meta,
    Column("id", BIG, primary_key=True, autoincrement=True),
    Column("device", String(16), ForeignKey("devices.id"), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("state", String(10), nullable=False),  # stored, merged, refused
    Column("reason", String(400), nullable=False, default=""),
    Column("model", Integer, nullable=False, default=0),  # number of the one that it is in
    Column("attempts", Integer, nullable=False, default=0),  # refused merges that it was in
    Column("base", String(64), nullable=False, default=""),  # known once a merge has looked at it, as all below
    Column("samples", BigInteger, nullable=False, default=0),
    Column("classes", Text, nullable=False, default="[]"),  # names that it has samples of, JSON
    Column("accuracy", Float),  # of it alone on top of the base, on the held-out samples
    UniqueConstraint("device", "sequence"),
    Index("updates_by_state", "state", "id"),
    Index("updates_by_time", "device", "received"),
)  # fmt: skip

models = Table(
    "models", meta,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("snapshot", String(64), nullable=False, index=True),
    Column("parent", Integer, nullable=False),  # number of the one that it was made from, 0: given
    Column("content", Integer, nullable=False),  # number of the run folder that it is: another after a rollback
    Column("net", String(100), nullable=False),
    Column("classes", Text, nullable=False),  # JSON
    Column("created", BigInteger, nullable=False),
    Column("accuracy", Float),
    Column("before", Float),  # the parent's, on the same samples
    Column("updates", Integer, nullable=False),  # in it
    Column("bytes", BigInteger, nullable=False),  # as it goes to devices
    Column("note", String(400), nullable=False),
    Column("published", BigInteger, nullable=False, default=0),  # when; 0: not yet
)  # fmt: skip

merges = Table(
    "merges", meta,
    Column("id", BIG, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("inputs", String(64), nullable=False, index=True),  # SHA-256 of what went in
    Column("model", Integer, nullable=False),  # that came of it; 0: refused
    Column("base", Integer, nullable=False),
    Column("updates", Integer, nullable=False),
    Column("accuracy", Float),
    Column("before", Float),
    Column("reason", String(400), nullable=False),
    Column("seconds", Float, nullable=False),
)  # fmt: skip

shared = Table("shared", meta, Column("name", String(256), primary_key=True), Column("at", BigInteger, nullable=False))

operators = Table(
    "operators", meta,
    Column("name", String(100), primary_key=True),
    Column("hash", String(200), nullable=False),  # argon2id, with its salt and costs
    Column("created", BigInteger, nullable=False),
)  # fmt: skip

audit = Table(
    "audit", meta,
    Column("id", BIG, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("who", String(100), nullable=False),
    Column("what", String(40), nullable=False),
    Column("detail", String(400), nullable=False),
)  # fmt: skip


def connect(url: str) -> Engine:
    """Opens a database. Raises ConfigError for a URL that is none, or whose driver is not installed."""
    try:
        engine = create_engine(url, pool_size=20, max_overflow=30, pool_pre_ping=not url.startswith("sqlite"))
    except ModuleNotFoundError as e:
        raise ConfigError(f'the database needs the package {e.name}; pip install "edgecl[postgresql]"') from None
    except (ArgumentError, NoSuchModuleError) as e:
        raise ConfigError(f"the database's URL is not one: {one_line(e)}") from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", _begin)
    elif engine.dialect.name != "postgresql":
        raise ConfigError(f"a database of the kind {engine.dialect.name} is not supported; sqlite and postgresql are")
    return engine


def _set_up(connection: Any, _: Any) -> None:
    """A commit is on the disk when it returns (FULL, in a write-ahead log); readers and a writer don't wait for each other."""
    connection.isolation_level = None  # transactions begin where `_begin` says, not where the driver guesses
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_SECONDS * 1000}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")


def now() -> int:
    """Seconds since 1970, UTC."""
    return int(time.time())


def prepare(engine: Engine) -> None:
    """Makes the tables that are not there. Raises StoreError."""
    with naming(engine):
        meta.create_all(engine)


def counted(db: Connection, column: Column[str], where: ColumnElement[bool] | None = None) -> dict[str, int]:
    """How often each value of a column is there."""
    wanted = select(column, func.count()).group_by(column)
    return {row[0]: row[1] for row in db.execute(wanted if where is None else wanted.where(where))}


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads. Raises StoreError."""
    with naming(engine), engine.begin() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that is on the disk when the block ends, or was not. Raises StoreError."""
    # SQLite: the lock is taken at once. One that is taken in the middle can fail where another process wrote meanwhile.
    with naming(engine), engine.connect().execution_options(sqlite_begin="IMMEDIATE") as connection, connection.begin():
        yield connection


@contextmanager
def naming(engine: Engine) -> Iterator[None]:
    """Turns the driver's errors into a StoreError that names the database, without its password."""
    try:
        yield
    except SQLAlchemyError as e:
        raise StoreError(f"{engine.url.render_as_string(hide_password=True)}: {one_line(e)}") from e


def one_line(error: BaseException) -> str:
    """The driver's own words, without the statement."""
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    return text[:300]
