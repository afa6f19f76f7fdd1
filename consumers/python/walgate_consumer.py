#!/usr/bin/env python3
"""Keeps a SQLite copy of Walgate's tables. Written from docs/PROTOCOL.md alone; § refers to its sections."""

from __future__ import annotations

import argparse, asyncio, base64, fcntl, hashlib, json, logging, math, re, secrets, sqlite3, sys, time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Iterator

import msgpack, nats, nats.errors, zstandard
from nats.aio.msg import Msg

log = logging.getLogger("walgate")
Pos = tuple[int, int]
MIB = 1 << 20
BODY_CAP, DICT_CAP, DEPTH_CAP = (1 << 30) + 64 * MIB, 900 << 10, 64  # §15
SIX_HOURS = 6 * 3600 * 1_000_000


class Fatal(Exception):
    """Something that a consumer of version 1 must not guess about: stop."""


class Reload(Exception):
    """The copies of these tables are void (all, if none is named)."""

    def __init__(self, why: str, *tables: Table) -> None:
        super().__init__(why)
        self.tables = tables


class Later(Exception):
    """No snapshot for now."""

    def __init__(self, why: str, seconds: float) -> None:
        super().__init__(why)
        self.seconds = seconds


def need(ok: Any, what: str) -> None:
    if not ok:
        raise Fatal(what)


def q(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def unpack_all(body: bytes) -> Iterator[Any]:
    """The MessagePack values of a body. The unpacker's own caps are the size of the buffer."""
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(body), 1), strict_map_key=False)
    unpacker.feed(body)
    yield from unpacker
    need(unpacker.tell() == len(body), "a body ends within a value")


def unpack(body: bytes) -> dict[str, Any]:
    value = msgpack.unpackb(body)
    need(isinstance(value, dict), "a control body is not a map")
    return value


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def local(value: Any) -> Any:
    """What SQLite stores: scalars as they are, arrays and maps as JSON text. SQLite has no NaN, so that is text."""
    kind = type(value)
    if value is None or kind is str or kind is bytes or kind is int and -(2**63) <= value < 2**63:
        return value
    if kind is bool:
        return int(value)
    if kind is float:
        return "NaN" if math.isnan(value) else value
    need(kind in (list, dict) and depth(value) <= DEPTH_CAP, f"a value of kind {kind.__name__} is unknown or too deep")
    return json.dumps(value, ensure_ascii=False, default=lambda b: "\\x" + b.hex())


@dataclass(frozen=True)
class Column:
    id: int | str  # what makes it the same column in another revision: attnum, or the name if there is none
    name: str
    type: str


@dataclass(frozen=True)
class Schema:
    raw: bytes
    revision: int
    state: str
    columns: list[Column]
    key: list[int]  # indexes into columns
    old: list[int]
    lsn: int
    reason: str

    @staticmethod
    def parse(raw: bytes, revision: int, token: str) -> Schema:
        m = unpack(raw)
        need(m["token"] == token, f"schema {token}@{revision} is of {m['token']}")
        columns = [Column(c["attnum"] if c["attnum"] > 0 else c["name"], c["name"], c["type"]) for c in m["columns"]]
        key = [[c.name for c in columns].index(name) for name in m["key"]]
        need(all(0 <= i < len(columns) for i in m["old"]), "old: no such column")
        return Schema(raw, revision, m["state"], columns, key, m["old"], m["lsn"], m.get("reason") or "")

    def key_ids(self) -> list[int | str]:
        return [self.columns[i].id for i in self.key]

    def names(self) -> dict[int | str, str]:
        """Local, quoted column names by column id. SQLite does not tell "a" from "A"."""
        out, taken = {}, {"_wg_rowid"}
        for c in self.columns:
            name = c.name if c.name.lower() not in taken else f"{c.name}#{c.id}"
            taken.add(name.lower())
            out[c.id] = q(name)
        return out


@dataclass
class Mark:
    epoch: int = 0
    pos: Pos = (0, 0)
    seq: int = 0
    created: str = ""


@dataclass
class Copy:
    """What is stored about a table that has a good copy."""

    schema: Schema
    epoch: int
    watermark: int
    window: dict[str, Any]
    finished_at: int
    seq: int
    pos: Pos

    def __post_init__(self) -> None:
        self.xip = set(self.window["xip"])

    def saw(self, xid: int) -> bool:
        """Did the snapshot see this transaction? (§14)"""
        xmin, xmax = self.window["xmin"], self.window["xmax"]
        full = xmax - (((xmax - xid + 2**31) % 2**32) - 2**31)
        return full < xmin or (full < xmax and full not in self.xip)


@dataclass
class Table:
    token: str
    copy: Copy | None = None
    latest: Schema | None = None
    reseed: int = 0  # of the latest schema, if it is of this epoch
    retry_at: float = 0.0
    sql: dict[tuple, str] = field(default_factory=dict)

    def wants_copy(self) -> bool:
        return self.copy is None and self.latest is not None and self.latest.state in ("live", "reseed")


class Store:
    """The SQLite file. Bookkeeping is in tables whose names no token can have (§2)."""

    def __init__(self, path: str) -> None:
        self.lock = open(path + ".lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # one consumer a file
        self.db = sqlite3.connect(path, isolation_level=None, cached_statements=512)
        for sql in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL",
                    'CREATE TABLE IF NOT EXISTS "=mark" (id INTEGER PRIMARY KEY, epoch, lsn, n, seq, created)',
                    'CREATE TABLE IF NOT EXISTS "=tables" (token PRIMARY KEY, revision, schema, epoch, watermark, '
                    "xid_window, finished_at, seq, lsn, n)"):  # fmt: skip
            self.db.execute(sql)

    def begin(self) -> None:
        if not self.db.in_transaction:
            self.db.execute("BEGIN IMMEDIATE")

    def rollback(self) -> None:
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")

    def commit(self, mark: Mark | None = None) -> None:
        if mark:
            self.begin()
            row = (mark.epoch, *mark.pos, mark.seq, mark.created)
            self.db.execute('REPLACE INTO "=mark" VALUES (1,?,?,?,?,?)', row)
        self.db.execute("COMMIT")

    def save(self, token: str, c: Copy) -> None:
        self.db.execute('REPLACE INTO "=tables" VALUES (?,?,?,?,?,?,?,?,?,?)', (
            token, c.schema.revision, c.schema.raw, c.epoch, c.watermark, json.dumps(c.window), c.finished_at, c.seq, *c.pos))  # fmt: skip

    def load(self) -> tuple[Mark, dict[str, Copy]]:
        mark = [Mark(e, (lsn, n), s, c) for _, e, lsn, n, s, c in self.db.execute('SELECT * FROM "=mark"')]
        copies = {t: Copy(Schema.parse(raw, rev, t), e, w, json.loads(xw), f, s, (lsn, n))
                  for t, rev, raw, e, w, xw, f, s, lsn, n in self.db.execute('SELECT * FROM "=tables"')}  # fmt: skip
        return (mark or [Mark()])[0], copies

    def forget(self, token: str) -> None:
        self.db.execute('DELETE FROM "=tables" WHERE token=?', (token,))

    def new_generation(self, token: str, schema: Schema) -> str:
        name = q("=new:" + token)
        self.db.execute(f"DROP TABLE IF EXISTS {name}")
        self.db.execute(f"CREATE TABLE {name} ({', '.join(['_wg_rowid INTEGER PRIMARY KEY', *schema.names().values()])})")
        return f"INSERT INTO {name} VALUES ({','.join(['NULL', *'?' * len(schema.columns)])})"

    def become(self, token: str, schema: Schema) -> None:
        self.db.execute(f"DROP TABLE IF EXISTS {q(token)}")
        self.db.execute(f"ALTER TABLE {q('=new:' + token)} RENAME TO {q(token)}")
        if schema.key:
            names = schema.names()
            key = ",".join(names[i] for i in schema.key_ids())
            self.db.execute(f"CREATE UNIQUE INDEX {q('=key:' + token)} ON {q(token)} ({key})")

    def follow(self, t: Table, new: Schema) -> None:
        """Alters the local table from its schema to a later one (§6)."""
        old, t.sql, table = t.copy.schema, {}, q(t.token)
        types = {c.id: c.type for c in old.columns}
        if old.key_ids() != new.key_ids() or any(types.get(c.id, c.type) != c.type for c in new.columns):
            raise Reload(f"{t.token}: revision {new.revision} changes the key or a type", t)
        have, want = old.names(), new.names()
        for i in have.keys() - want.keys():
            self.db.execute(f"ALTER TABLE {table} DROP COLUMN {have[i]}")
        renamed = [i for i in have.keys() & want.keys() if have[i] != want[i]]
        for k, i in enumerate(renamed):
            self.db.execute(f'ALTER TABLE {table} RENAME COLUMN {have[i]} TO "=tmp{k}"')
        for k, i in enumerate(renamed):
            self.db.execute(f'ALTER TABLE {table} RENAME COLUMN "=tmp{k}" TO {want[i]}')
        for i in (i for i in want if i not in have):
            self.db.execute(f"ALTER TABLE {table} ADD COLUMN {want[i]}")
        t.copy.schema = new
        self.save(t.token, t.copy)
        log.info("%s: now at schema revision %d", t.token, new.revision)

    def apply(self, t: Table, schema: Schema, item: list[Any]) -> None:
        """One change (§9, §14 "How to apply")."""
        table, names, width = q(t.token), t.copy.schema.names(), len(schema.columns)
        local_key = [names[i] for i in t.copy.schema.key_ids()]
        need(schema is t.copy.schema or schema.key_ids() == t.copy.schema.key_ids(), "an older revision has another key")

        def one(values: list[Any], of: list[int]) -> tuple[str, list[Any]]:
            """WHERE for the row with these values (of the columns `of`): by key, or one of the equal ones."""
            by = dict(zip(of, values))
            at = schema.key or [i for i in by if schema.columns[i].id in names]
            where = " AND ".join(f"{names[schema.columns[i].id]} IS ?" for i in at) or "1"
            return f"_wg_rowid = (SELECT _wg_rowid FROM {table} WHERE {where} LIMIT 1)", [by[i] for i in at]

        match item:
            case ["t", int()]:
                self.db.execute(f"DELETE FROM {table}")
            case ["d", int(), list(old)] if len(old) == len(schema.old):
                where, args = one([local(v) for v in old], schema.old)
                self.db.execute(f"DELETE FROM {table} WHERE {where}", args)
            case ["i" | "u" as kind, int(), list(row), *rest] if len(row) == width and len(rest) <= (kind == "u") * 2:
                unchanged, old = (*rest, None, None)[:2]
                need(all(0 <= i < width for i in unchanged or ()), "unchanged: no such column")
                need(old is None or len(old) == len(schema.old), "old: wrong number of values")
                row, skip = [local(v) for v in row], set(unchanged or ())
                cols = [(i, names[c.id]) for i, c in enumerate(schema.columns) if c.id in names and i not in skip]
                args, sets = [row[i] for i, _ in cols], ",".join(f"{n}=?" for _, n in cols)
                marks = ",".join(["NULL", *"?" * len(cols)])
                insert = f"INSERT INTO {table} ({','.join(['_wg_rowid', *(n for _, n in cols)])}) VALUES ({marks})"
                if not schema.key and kind == "i":
                    self.db.execute(insert, args)
                    return
                key = [row[i] for i in schema.key]
                where, at = one(row, list(range(width)))
                if old is not None:
                    where_old, at_old = one([local(v) for v in old], schema.old)
                    if not schema.key or at_old != key:
                        hit = self.db.execute(f"SELECT _wg_rowid FROM {table} WHERE {where_old}", at_old).fetchone()
                        if hit and schema.key:
                            self.db.execute(f"DELETE FROM {table} WHERE {where} AND _wg_rowid <> ?", [*at, hit[0]])
                        if hit:
                            self.db.execute(f"UPDATE {table} SET {sets} WHERE _wg_rowid = ?", [*args, hit[0]])
                            return
                need(schema.key, "an update of a table without a key finds no row")
                if skip:
                    self.db.execute(f"UPDATE {table} SET {sets} WHERE {where}", [*args, *at])
                else:
                    sets = ",".join(f"{n}=excluded.{n}" for _, n in cols)
                    self.db.execute(f"{insert} ON CONFLICT ({','.join(local_key)}) DO UPDATE SET {sets}", args)
            case _:
                raise Fatal(f"{t.token}: unknown change {str(item)[:80]}")
