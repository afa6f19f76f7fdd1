#!/usr/bin/env python3
"""Keeps a SQLite copy of Walgate's tables. Written from docs/PROTOCOL.md alone; § refers to its sections."""

from __future__ import annotations

import argparse, asyncio, base64, fcntl, hashlib, json, logging, math, random, secrets, sqlite3, sys, time
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
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


def spread(seconds: float) -> float:
    """Many consumers that are told the same must not come back at once."""
    return seconds * random.uniform(1, 1.5)


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
    type: str  # and the oid of what its values are


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
        columns = [Column(c["attnum"] if c["attnum"] > 0 else c["name"], c["name"], f"{c['type']} {c.get('base_oid', c['oid'])}")
                   for c in m["columns"]]  # fmt: skip
        key = [[c.name for c in columns].index(name) for name in m["key"]]
        need(all(0 <= i < len(columns) for i in m["old"]), "old: no such column")
        return Schema(raw, revision, m["state"], columns, key, m["old"], m["lsn"], m.get("reason") or "")

    @cached_property
    def key_ids(self) -> list[int | str]:
        return [self.columns[i].id for i in self.key]

    @cached_property
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
    verified: int = 0  # up to here CDC had lost nothing before it was read
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
    floor: int = 0  # snapshots below this position do not help: what follows them could not be applied
    bad: set[str] = field(default_factory=set)  # snapshots that were not whole, or failed

    def wants_copy(self) -> bool:
        return self.copy is None and self.latest is not None and self.latest.state in ("live", "reseed")


class Store:
    """The SQLite file. Bookkeeping is in tables whose names no token can have (§2)."""

    def __init__(self, path: str) -> None:
        self.lock = open(path + ".lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # one consumer a file
        self.db = sqlite3.connect(path, isolation_level=None, cached_statements=512)
        for sql in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL",
                    'CREATE TABLE IF NOT EXISTS "=mark" (id INTEGER PRIMARY KEY, epoch, lsn, n, seq, verified, created)',
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
            row = (mark.epoch, *mark.pos, mark.seq, mark.verified, mark.created)
            self.db.execute('REPLACE INTO "=mark" VALUES (1,?,?,?,?,?,?)', row)
        self.db.execute("COMMIT")

    def save(self, token: str, c: Copy) -> None:
        self.db.execute('REPLACE INTO "=tables" VALUES (?,?,?,?,?,?,?,?,?,?)', (
            token, c.schema.revision, c.schema.raw, c.epoch, c.watermark, json.dumps(c.window), c.finished_at, c.seq, *c.pos))  # fmt: skip

    def load(self) -> tuple[Mark, dict[str, Copy]]:
        mark = [Mark(e, (lsn, n), s, v, c) for _, e, lsn, n, s, v, c in self.db.execute('SELECT * FROM "=mark"')]
        copies = {t: Copy(Schema.parse(raw, rev, t), e, w, json.loads(xw), f, s, (lsn, n))
                  for t, rev, raw, e, w, xw, f, s, lsn, n in self.db.execute('SELECT * FROM "=tables"')}  # fmt: skip
        return (mark or [Mark()])[0], copies

    def forget(self, token: str) -> None:
        self.db.execute('DELETE FROM "=tables" WHERE token=?', (token,))

    def new_generation(self, token: str, schema: Schema) -> str:
        name = q("=new:" + token)
        self.db.execute(f"DROP TABLE IF EXISTS {name}")
        self.db.execute(f"CREATE TABLE {name} ({', '.join(['_wg_rowid INTEGER PRIMARY KEY', *schema.names.values()])})")
        return f"INSERT INTO {name} VALUES ({','.join(['NULL', *'?' * len(schema.columns)])})"

    def become(self, token: str, schema: Schema) -> None:
        self.db.execute(f"DROP TABLE IF EXISTS {q(token)}")
        self.db.execute(f"ALTER TABLE {q('=new:' + token)} RENAME TO {q(token)}")
        if schema.key:
            names = schema.names
            key = ",".join(names[i] for i in schema.key_ids)
            self.db.execute(f"CREATE UNIQUE INDEX {q('=key:' + token)} ON {q(token)} ({key})")

    def follow(self, t: Table, new: Schema) -> None:
        """Alters the local table from its schema to a later one (§6)."""
        old, table = t.copy.schema, q(t.token)
        types = {c.id: c.type for c in old.columns}
        if old.key_ids != new.key_ids or any(types.get(c.id, c.type) != c.type for c in new.columns):
            raise Reload(f"{t.token}: revision {new.revision} changes the key or a type", t)
        have, want = old.names, new.names
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
        table, names, width = q(t.token), t.copy.schema.names, len(schema.columns)
        local_key = [names[i] for i in t.copy.schema.key_ids]
        need(schema is t.copy.schema or schema.key_ids == t.copy.schema.key_ids, "an older revision has another key")

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
                if not schema.key:
                    self.db.execute(insert, args)
                elif skip:  # a row that was not there holds NULL in what did not travel
                    if not self.db.execute(f"UPDATE {table} SET {sets} WHERE {where}", [*args, *at]).rowcount:
                        self.db.execute(insert, args)
                else:
                    sets = ",".join(f"{n}=excluded.{n}" for _, n in cols)
                    self.db.execute(f"{insert} ON CONFLICT ({','.join(local_key)}) DO UPDATE SET {sets}", args)
            case _:
                raise Fatal(f"{t.token}: unknown change {str(item)[:80]}")


class Server:
    """NATS, by the subjects that §16 allows a consumer."""

    def __init__(self, nc: nats.NATS) -> None:
        self.nc, self.schemas, self.dicts = nc, {}, {}

    async def api(self, subject: str, **body: Any) -> dict[str, Any]:
        reply = json.loads((await self.nc.request("$JS.API." + subject, json.dumps(body).encode(), timeout=5)).data)
        if error := reply.get("error"):
            raise KeyError(subject) if error["code"] == 404 else nats.errors.Error(f"{subject}: {error}")
        return reply

    async def info(self, stream: str) -> tuple[int, int, str]:
        try:
            reply = await self.api("STREAM.INFO." + stream)
        except KeyError:
            raise Later(f"there is no stream {stream} yet", 2) from None
        return reply["state"]["first_seq"], reply["state"]["last_seq"], reply["created"]

    async def message(self, stream: str, **which: Any) -> Stored | None:
        try:
            m = (await self.api("STREAM.MSG.GET." + stream, **which))["message"]
        except KeyError:
            return None
        headers = dict(h.split(": ", 1) for h in base64.b64decode(m.get("hdrs", "")).decode().splitlines() if ": " in h)
        return Stored(m["subject"], m["seq"], headers, base64.b64decode(m.get("data", "")), m["time"])

    async def schema(self, t: Table, revision: int) -> Schema:
        for _ in range(20):
            if found := self.schemas.get((t.token, revision)):
                return found
            if (m := await self.message("KV_schemas", seq=revision)) and m.subject == "$KV.schemas." + t.token:
                self.schemas[t.token, revision] = Schema.parse(m.data, revision, t.token)
            else:
                await asyncio.sleep(0.5)
        raise Reload(f"schema {t.token}@{revision} cannot be fetched", t)

    async def dictionary(self, t: Table, ref: str) -> tuple[str, int, zstandard.ZstdDecompressor]:
        key, revision = ref.rsplit("@", 1)
        for _ in range(30):
            if ref in self.dicts:
                return self.dicts[ref]
            m = await self.message("KV_dictionaries", seq=int(revision))
            if m and m.subject == "$KV.dictionaries." + key:
                sha = hashlib.sha256(m.data).hexdigest()
                need(sha == m.headers.get("Wg-Sha256"), f"the hash of dictionary {ref} is wrong")
                need(m.data[:4] == b"\x37\xa4\x30\xec" and len(m.data) <= DICT_CAP, f"{ref} is no trained dictionary")
                data = zstandard.ZstdCompressionDict(m.data)
                self.dicts[ref] = sha, data.dict_id(), zstandard.ZstdDecompressor(dict_data=data)
            elif m:
                break
            else:
                log.warning("dictionary %s is not there yet", ref)
                await asyncio.sleep(1)
        raise Reload(f"dictionary {ref} is lost", t)

    async def plain(self, t: Table, headers: dict[str, str], body: bytes, sha: str | None = None) -> bytes:
        """Decompresses a joined body (§12). `sha`: of the dictionary, if it has to be a certain one."""
        encoding, ref = headers.get("Content-Encoding"), headers.get("Wg-Dict")
        need(encoding in (None, "zstd"), f"unknown encoding {encoding}")
        if encoding is None:
            return body
        frame = zstandard.get_frame_parameters(body)
        need(frame.content_size <= min(BODY_CAP, max(16 * MIB, 4096 * len(body))), "frame: no size, or above the cap")
        have, dict_id, zstd = await self.dictionary(t, ref) if ref else (None, 0, zstandard.ZstdDecompressor())
        need(frame.dict_id == dict_id and (not ref or sha in (None, have)), f"the frame is not of dictionary {ref}")
        return zstd.decompress(body, allow_extra_data=False) if frame.content_size else b""


@dataclass
class Stored:
    subject: str
    seq: int
    headers: dict[str, str]
    data: bytes
    time: str


class Reader:
    """An ephemeral pull consumer that is created anew when a message is missing or it falls silent (§3)."""

    def __init__(self, server: Server, stream: str, after: int, subjects: list[str]) -> None:
        self.server, self.stream, self.last, self.subjects, self.sub = server, stream, after, subjects, None

    async def open(self) -> None:
        await self.close()
        nc, name = self.server.nc, "wgpy_" + secrets.token_hex(8)
        config = {"name": name, "ack_policy": "none", "deliver_policy": "by_start_sequence", "opt_start_seq": self.last + 1,
                  "filter_subjects": self.subjects, "inactive_threshold": 60 * 10**9, "mem_storage": True}  # fmt: skip
        await self.server.api(f"CONSUMER.CREATE.{self.stream}.{name}", stream_name=self.stream, config=config)
        self.inbox = nc.new_inbox()
        self.sub = await nc.subscribe(self.inbox, pending_bytes_limit=1 << 30)
        self.pull, self.count, self.left, self.heard = f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{name}", 0, 0, time.monotonic()

    async def close(self) -> None:
        if self.sub:
            await self.sub.unsubscribe()
            self.sub = None

    async def next(self) -> Msg | None:
        """The next message; None now and then when there is none."""
        if not self.sub or time.monotonic() - self.heard > 15:  # a pull ends after five seconds at most
            await self.open()
        if self.left == 0:
            self.left, most = 256, max(16 * MIB, 2 * self.server.nc.max_payload)
            ask = {"batch": self.left, "expires": 5 * 10**9, "max_bytes": most}
            await self.server.nc.publish(self.pull, json.dumps(ask).encode(), reply=self.inbox)
        try:
            msg = await self.sub.next_msg(timeout=0.5)
        except nats.errors.TimeoutError:
            return None
        self.heard = time.monotonic()
        if not msg.reply.startswith("$JS.ACK."):  # the pull has ended: 404, 408, 409; 503: the consumer is gone
            self.left = 0
            if (msg.headers or {}).get("Status") not in ("404", "408", "409"):
                await self.close()
            return None
        at = msg.metadata.sequence
        if at.consumer != self.count + 1:
            await self.close()
            return None
        self.count, self.left, self.last = at.consumer, self.left - 1, at.stream
        return msg


def part(headers: dict[str, str]) -> tuple[int, int]:
    k, n = map(int, headers.get("Wg-Part", "1/1").split("/"))
    need(1 <= k <= n, "Wg-Part is malformed")
    return k, n


class Consumer:
    def __init__(self, server: Server, store: Store, tokens: list[str], until: bool) -> None:
        self.server, self.store, self.tables = server, store, [Table(t) for t in tokens]
        self.epoch, self.created, self.until, self.target = 0, "", until, -1
        self.epoch_entry, self.epoch_since = (0, b""), 0  # of `=epoch`: the latest entry, and the first revision with its number
        self.gathered: dict[str, Pos] = {}  # position of the body whose parts are being gathered
        # The mark goes on without a table that is not followed, so its copy cannot be continued later: forget it.
        for token in store.load()[1].keys() - set(tokens):
            store.forget(token)

    async def run(self) -> None:
        while True:
            try:
                self.store.rollback()
                self.mark, copies = self.store.load()
                for t in self.tables:
                    t.copy = copies.get(t.token)
                await self.refresh()
                for t in self.tables:
                    if t.wants_copy() and time.monotonic() >= t.retry_at:
                        try:
                            await self.load(t)
                        except Later as e:
                            t.retry_at = time.monotonic() + spread(e.seconds)
                            log.error("%s: %s; again in %d s", t.token, e, e.seconds)
                if await self.follow():
                    return
            except Reload as e:
                self.store.rollback()
                for t in e.tables:
                    self.store.forget(t.token)
                log.warning("load again: %s", e)
            except Later as e:
                log.info("%s", e)
                await asyncio.sleep(spread(e.seconds))
            except (nats.errors.Error, TimeoutError, OSError) as e:
                log.warning("NATS: %s; again from the stored position", str(e) or type(e).__name__)
                await asyncio.sleep(spread(1))

    async def read_epoch(self) -> None:
        """The epoch, and since which revision of the bucket it is that: a standby that takes over writes it again (§5)."""
        key = "$KV.schemas.=epoch"
        entry = await self.server.message("KV_schemas", last_by_subj=key)
        if not entry or not entry.data:  # an empty value is an operator's doing: keep what we had
            if not self.epoch:
                raise Later("no gateway has streamed yet", 2)
            return
        if (entry.seq, entry.data) == self.epoch_entry:
            return
        epoch, since, at = unpack(entry.data)["epoch"], entry.seq, 0
        while (m := await self.server.message("KV_schemas", seq=at + 1, next_by_subj=key)) and m.seq < since:
            at = m.seq
            if m.data and unpack(m.data)["epoch"] == epoch:
                since = at
        if epoch != self.epoch:  # positions of another epoch mean nothing
            for t in self.tables:
                t.floor = 0
        self.epoch, self.epoch_entry, self.epoch_since = epoch, (entry.seq, entry.data), since

    async def refresh(self) -> None:
        """Reads the epoch, the latest schemas and the bounds of CDC; raises Reload if they void a copy (§14, 2 and 10)."""
        await self.read_epoch()
        for t in self.tables:
            m = await self.server.message("KV_schemas", last_by_subj="$KV.schemas." + t.token)
            if m and m.data and (t.latest is None or t.latest.revision != m.seq):
                t.latest = Schema.parse(m.data, m.seq, t.token)
                log.info("%s: revision %d is %s %s", t.token, m.seq, t.latest.state, t.latest.reason)
            t.reseed = t.latest.lsn if t.latest and t.latest.state == "reseed" and t.latest.revision > self.epoch_since else 0
        first, last, self.created = await self.server.info("CDC")
        if self.target < 0:
            self.target = last
        for t, c in ((t, t.copy) for t in self.tables if t.copy):
            seq, verified = max(c.seq, self.mark.seq), max(c.seq, self.mark.verified)
            if c.epoch < self.epoch or self.created != self.mark.created:
                raise Reload("another epoch or stream", *(t for t in self.tables if t.copy and t.copy.epoch <= c.epoch))
            if c.watermark < t.reseed or last < seq or first > verified + 1:
                raise Reload(f"{t.token}: reseed, or CDC does not hold what follows", t)

    async def ask(self, t: Table) -> None:
        reply = json.loads((await self.server.nc.request("snapshot.request." + t.token, b"", timeout=5)).data)
        error = reply.get("error")
        if error and (error.get("err_code") != 10077 or "per subject" not in error["description"]):
            raise Later(f"request refused: {error}", 10)
        log.info("%s: asked for a snapshot", t.token)

    async def reusable(self, t: Table) -> int:
        """The INIT sequence of a snapshot that will do, or 0 (§7)."""
        get, (first, last, _) = self.server.message, await self.server.info("CDC")
        begun = await get("INIT", last_by_subj="init.start." + t.token)
        if not begun:
            return 0
        m = unpack(begun.data)
        good = m["v"] == 1 and m["epoch"] == self.epoch and m["lsn"] >= max(t.reseed, t.floor)
        if not good or m["snapshot_id"] in t.bad or not first - 1 <= m["cdc_sequence"] <= last:
            return 0
        meta, error = [await get("INIT", last_by_subj=f"init.{k}.{t.token}") for k in ("meta", "error")]
        if meta and unpack(meta.data)["snapshot_id"] == m["snapshot_id"]:
            return begun.seq
        newest = await get("INIT", last_by_subj=f"init.snap.{t.token}.{m['snapshot_id']}.>") or begun
        age = time.time() - datetime.fromisoformat(newest.time[:19] + "+00:00").timestamp()
        return 0 if age > 30 or error and unpack(error.data)["snapshot_id"] == m["snapshot_id"] else begun.seq

    async def load(self, t: Table) -> None:
        begin, asked = await self.reusable(t), False
        if not begin:
            begin, asked = (await self.server.info("INIT"))[1] + 1, True
            await self.ask(t)
        subjects = [f"init.{k}" for k in (f"start.{t.token}", f"snap.{t.token}.>", f"meta.{t.token}", f"error.{t.token}")]
        reader, start, heard = Reader(self.server, "INIT", begin - 1, subjects), None, time.monotonic()
        try:
            while True:
                msg = await reader.next()
                if msg is None:
                    if time.monotonic() - heard > 60:
                        await self.ask(t)
                        asked, heard = True, time.monotonic()
                    continue
                heard, headers, what = time.monotonic(), msg.headers or {}, msg.subject.split(".")
                if what[1] == "start":
                    start, parts, chunks = unpack(msg.data), {}, {}
                    if start["snapshot_id"] in t.bad:
                        start = None
                        continue
                    need(start["v"] == 1, "init.start is of another version")
                    await self.refresh()
                    if start["epoch"] < self.epoch or start["lsn"] < max(t.reseed, t.floor):
                        start, asked = None, True
                        await self.ask(t)
                        continue
                    schema = await self.server.schema(t, start["schema_revision"])
                    insert = self.store.new_generation(t.token, schema)
                elif what[1] == "error":
                    m = unpack(msg.data)
                    if m["snapshot_id"] in (None, start and start["snapshot_id"]) or asked and not start:
                        raise Later(f"{m['code']}: {m['message']}", m["retry_after"] or 180)
                elif what[1] == "snap" and start and what[3] == start["snapshot_id"] and int(what[4]) not in chunks:
                    (k, n), got = part(headers), parts.setdefault(msg.subject, {})
                    got[k] = msg.data
                    if len(got) == n:
                        del parts[msg.subject]
                        body = b"".join(got[i] for i in range(1, n + 1))
                        need(len(body) <= BODY_CAP, "a chunk is above the cap")
                        need(int(headers["Wg-Schema"]) == schema.revision, "a chunk of another schema")
                        body = await self.server.plain(t, headers, body, start["dictionary_sha256"] or "none")
                        rows = chunk_rows(body, schema)
                        chunks[int(what[4])] = hashlib.sha256(body).digest(), len(rows)
                        self.store.begin()
                        self.store.db.executemany(insert, rows)
                        self.store.commit()
                elif what[1] == "meta" and start and (m := unpack(msg.data))["snapshot_id"] == start["snapshot_id"]:
                    digest = hashlib.sha256(b"".join(chunks[n][0] for n in sorted(chunks))).hexdigest()
                    rows = sum(count for _, count in chunks.values())
                    if (len(chunks), rows, digest) == (m["batch_count"], m["row_count"], m["sha256"]):
                        return self.install(t, schema, m)
                    log.warning("%s: the snapshot is not whole", t.token)
                    t.bad.add(start["snapshot_id"])
                    start, asked = None, True
                    await self.ask(t)
        except (Later, Reload) as e:
            if start and (isinstance(e, Later) or t in e.tables):
                t.bad.add(start["snapshot_id"])
            raise
        finally:
            await reader.close()

    def install(self, t: Table, schema: Schema, m: dict[str, Any]) -> None:
        """The generation becomes the table (§14, 6)."""
        c, mark = Copy(schema, m["epoch"], m["lsn"], m["xid_window"], m["finished_at"], m["cdc_sequence"], (m["lsn"], 0)), self.mark
        self.store.begin()
        self.store.become(t.token, schema)
        others = [o for o in self.tables if o is not t and o.copy and o.copy.epoch == c.epoch]
        for o in others:
            o.copy.seq, o.copy.pos = max(o.copy.seq, mark.verified), max(o.copy.pos, mark.pos)
            self.store.save(o.token, o.copy)
        self.mark = Mark(c.epoch, c.pos, c.seq, c.seq, self.created)
        if others:
            self.mark.seq, self.mark.pos = min(mark.seq, c.seq), min(mark.pos, c.pos)
            self.mark.verified = min(mark.verified, self.mark.seq)
        t.copy = c
        self.store.save(t.token, c)
        self.store.commit(self.mark)
        log.info("%s: %d rows at %X", t.token, m["row_count"], c.watermark)

    def done(self) -> bool:
        waits = any(not t.copy and (not t.latest or t.wants_copy()) for t in self.tables)
        caught_up = self.mark.seq >= self.target or not any(t.copy for t in self.tables)
        return self.until and not waits and caught_up and not self.store.db.in_transaction

    async def follow(self) -> bool:
        """Applies changes. True: done; False: tables have to be loaded."""
        good = {"cdc." + t.token: t for t in self.tables if t.copy}
        after = min((max(t.copy.seq, self.mark.seq) for t in good.values()), default=0)
        reader = Reader(self.server, "CDC", after, [*good, "cdc.=progress"])
        checked = stored = time.monotonic()
        parts: dict[str, list[bytes]] = {}
        try:
            while True:
                if self.done():
                    await self.verify()
                    return True
                if not good:
                    await asyncio.sleep(1)
                elif msg := await reader.next():
                    if msg.subject != "cdc.=progress":
                        await self.change(good[msg.subject], msg, parts)
                    else:
                        self.progress(msg, parts)
                        waiting, now = reader.sub.pending_msgs > 0, time.monotonic()
                        changed = self.store.db.in_transaction
                        if now - stored > 1 or changed and not waiting or self.until and self.mark.seq >= self.target:
                            self.store.commit(self.mark)
                            stored = now
                if time.monotonic() - checked > 1:
                    await self.verify()
                    checked = time.monotonic()
                    if any(t.wants_copy() and checked >= t.retry_at for t in self.tables):
                        return False
        finally:
            await reader.close()

    async def verify(self) -> None:
        """Looks at CDC after having read up to the mark: what was read then had lost nothing before (§14, 10)."""
        read = self.mark.seq
        await self.refresh()
        if read > self.mark.verified:
            self.mark.verified = read
            if not self.store.db.in_transaction:
                self.store.commit(self.mark)

    def progress(self, msg: Msg, parts: dict[str, list[bytes]]) -> None:
        m, epoch = unpack(msg.data), int(msg.headers["Wg-Pos"].split("/")[0], 16)
        if void := [t for t in self.tables if t.copy and t.copy.epoch < epoch]:
            raise Reload(f"epoch {epoch:08x} begins", *void)
        for t in self.tables:
            lost = self.gathered.get(t.token, (0, 0))
            if parts.get("cdc." + t.token) and lost <= (m["lsn"], m["n"]):  # promised, but not there
                t.floor = m["lsn"] + 1
                raise Reload(f"{t.token}: the body at {lost} never became whole", t)
        parts.clear()
        if (epoch, (m["lsn"], m["n"])) > (self.mark.epoch, self.mark.pos):
            self.mark.epoch, self.mark.pos = epoch, (m["lsn"], m["n"])
        self.mark.seq = max(self.mark.seq, msg.metadata.sequence.stream)

    async def change(self, t: Table, msg: Msg, parts: dict[str, list[bytes]]) -> None:
        c, mark, (epoch, lsn, n) = t.copy, self.mark, msg.headers["Wg-Pos"].split("/")
        epoch, pos = int(epoch, 16), (int(lsn, 16), int(n))
        if msg.metadata.sequence.stream <= max(c.seq, mark.seq) or epoch < c.epoch:
            return
        if epoch > c.epoch:
            raise Reload(f"{t.token}: epoch {epoch:08x} begins", t)
        after = max(c.pos, mark.pos) if mark.epoch == epoch else c.pos
        if pos <= after:
            return
        k, n = part(msg.headers)
        got = parts.setdefault(msg.subject, []) if k > 1 else parts.update({msg.subject: []}) or parts[msg.subject]
        need(len(got) == k - 1, f"{t.token}: a part without its predecessors")
        got.append(msg.data)
        self.gathered[t.token] = pos
        need(sum(map(len, got)) <= BODY_CAP, "a body is above the cap")
        if k < n:
            return
        try:
            body = await self.server.plain(t, msg.headers, b"".join(parts.pop(msg.subject)))
            self.store.begin()
            schema = await self.server.schema(t, int(msg.headers["Wg-Schema"]))
            if schema.revision > c.schema.revision:
                self.store.follow(t, schema)
        except Reload:
            t.floor = pos[0] + 1  # a snapshot from before would lead here again
            raise
        xid = None
        for item in unpack_all(body):
            if item[0] == "b":
                _, lsn, xid, at = item
                seen = at <= c.finished_at + SIX_HOURS and c.saw(xid)
                continue
            need(xid is not None, "a body does not begin with a transaction")
            if (lsn, item[1]) > after and not seen:
                self.store.apply(t, schema, item)


def chunk_rows(body: bytes, schema: Schema) -> list[tuple]:
    """The rows of a chunk (§8)."""
    layout, count, columns = msgpack.unpackb(body)
    need(layout == 1 and len(columns) == len(schema.columns), "the layout of a chunk is unknown")
    out = []
    for encoding, values in columns:
        need(encoding in (0, 1) and len(values) == count, "the encoding of a column is unknown")
        running = 0
        for i, v in enumerate(values) if encoding == 1 else ():
            if type(v) is int:
                values[i] = running = (running + v + 2**63) % 2**64 - 2**63
            else:
                need(v is None or type(v) is str, "not a difference")
        out.append([local(v) for v in values])
    return list(zip(*out)) if out else [()] * count


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nats", default="nats://127.0.0.1:4222")
    parser.add_argument("--sqlite", required=True, metavar="FILE")
    parser.add_argument("--until-caught-up", action="store_true", help="exit 0 when all that CDC holds now is applied")
    parser.add_argument("tables", nargs="+", metavar="TABLE", help="table tokens: users, sales=2Eorders")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    need(len({t.lower() for t in args.tables}) == len(args.tables), "SQLite does not tell these table names apart")
    nc = await nats.connect(args.nats, max_reconnect_attempts=-1)
    try:
        await Consumer(Server(nc), Store(args.sqlite), args.tables, args.until_caught_up).run()
        return 0
    except Exception:  # unknown or malformed: tell an operator. Nothing was committed behind the stored position
        log.exception("stopped")
        return 2
    finally:
        await nc.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
