"""Reads Walgate's test vectors with libraries that share nothing with it: msgpack and zstandard from PyPI.

    python decode_vectors.py FOLDER

Everything needed to read the wire is in this file; docs/PROTOCOL.md says the same in words.
"""

import hashlib
import json
import math
import pathlib
import sys

import msgpack
import zstandard

BODY_BYTES_MAX = 64 << 20


class Refused(Exception):
    """The bytes are not what the protocol says."""


def decompress(body, headers, dictionary):
    if headers.get("Content-Encoding") != "zstd":
        return body
    declared = zstandard.frame_content_size(body)
    if declared < 0 or declared > BODY_BYTES_MAX:
        raise Refused("no content size, or one beyond the cap")
    parameters = zstandard.get_frame_parameters(body)
    if not parameters.has_checksum:
        raise Refused("no checksum")
    given = dictionary.dict_id() if dictionary else 0
    if parameters.dict_id != given:
        raise Refused(f"needs dictionary {parameters.dict_id}, not {given}")
    try:
        return zstandard.ZstdDecompressor(dict_data=dictionary).decompress(body)
    except zstandard.ZstdError as error:
        raise Refused(str(error)) from error


def unpack_all(body):
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=BODY_BYTES_MAX)
    unpacker.feed(body)
    values = []
    while unpacker.tell() < len(body):
        try:
            values.append(unpacker.unpack())
        except (msgpack.exceptions.OutOfData, ValueError) as error:
            raise Refused(repr(error)) from error
    return values


def changes(body, columns):
    found, transaction = [], None
    for value in unpack_all(body):
        op = value[0]
        if op == "b":
            transaction = value[1:]
            continue
        if transaction is None:
            raise Refused("a change before the first transaction")
        lsn, xid, at = transaction
        change = {"lsn": lsn, "n": value[1], "xid": xid, "at": at, "op": op}
        if op in "iu":
            if len(value[2]) != columns:
                raise Refused("not as many values as columns")
            change["row"] = plain(value[2])
        if op == "u":
            change["unchanged"] = (value[3] if len(value) > 3 else None) or []
            change["old"] = plain(value[4]) if len(value) > 4 else None
        if op == "d":
            change["old"] = plain(value[2])
        found.append(change)
    return found


def chunk(body, columns):
    [[layout, rows, packed]] = unpack_all(body)
    if layout != 1 or len(packed) != columns:
        raise Refused("not a chunk of this table")
    table = []
    for encoding, values in packed:
        if len(values) != rows:
            raise Refused("not as many values as rows")
        table.append(deltas(values) if encoding == 1 else values)
    rows = [[column[row] for column in table] for row in range(rows)]
    return {"rows": plain(rows), "sha256": hashlib.sha256(body).hexdigest()}


def deltas(values):
    """Integers are differences to the integer before, modulo 2^64; what is none stands for itself."""
    found, previous = [], 0
    for value in values:
        if isinstance(value, int) and not isinstance(value, bool):
            previous = (previous + value + 2**63) % 2**64 - 2**63
            value = previous
        found.append(value)
    return found


def plain(value):
    """As JSON says it: see tests/src/json.rs."""
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {"map": [[plain(key), plain(item)] for key, item in value.items()]}
    return value


def decode(vector, body, dictionary):
    body = decompress(body, vector["headers"], dictionary)
    kind = vector["kind"]
    if kind == "changes":
        return changes(body, vector["columns"])
    if kind == "chunk":
        return chunk(body, vector["columns"])
    if kind == "control":
        [message] = unpack_all(body)
        return message
    return {"id": zstandard.ZstdCompressionDict(body).dict_id(), "sha256": hashlib.sha256(body).hexdigest()}


def check(folder, path):
    vector = json.loads(path.read_text())
    body = b"".join((folder / part).read_bytes() for part in vector["bodies"])
    dictionary = None
    if vector["dictionary"]:
        dictionary = zstandard.ZstdCompressionDict((folder / (vector["dictionary"] + ".bin")).read_bytes())
    expected = vector["expected"]
    must_refuse = isinstance(expected, dict) and "refused" in expected
    try:
        found = decode(vector, body, dictionary)
    except Refused as reason:
        return None if must_refuse else f"refused: {reason}"
    if must_refuse:
        return f"accepted although {expected['refused']}"
    # As texts, so that 1, 1.0 and True differ, and 0.0 and -0.0.
    found, expected = (json.dumps(value, sort_keys=True) for value in (found, expected))
    if found != expected:
        at = next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b), min(len(found), len(expected)))
        around = slice(max(0, at - 80), at + 80)
        return f"found …{found[around]}… instead of …{expected[around]}…"
    return None


def main():
    folder = pathlib.Path(sys.argv[1])
    paths = sorted(folder.glob("*.json"))
    problems = [(path.stem, problem) for path in paths if (problem := check(folder, path))]
    for name, problem in problems:
        print(f"{name}: {problem}")
    print(f"{len(paths) - len(problems)} of {len(paths)} vectors agree")
    return 1 if problems or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
