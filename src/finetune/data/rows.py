"""Read one data file as a stream of rows, each with the place where it stands.

Readers yield ``(row, where)``: a dict of columns and a place such as ``data/train.jsonl:17`` (a line) or
``train.parquet row 17`` (where a file has no lines); both count from 1.  Memory does not grow with the file,
except for a JSON array, which is read whole.
"""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from finetune.errors import DataError

Row = dict[str, Any]
LocatedRow = tuple[Row, str]

BOM = b"\xef\xbb\xbf"
FOREIGN_HEADS = {
    b"\xff\xfe": "is UTF-16 text; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"\xfe\xff": "is UTF-16 text; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"\x1f\x8b": "is compressed with gzip; unpack it first (gunzip)",
    b"PK\x03\x04": "is a zip archive; unpack it first (unzip)",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; unpack it first (unzstd)",
    b"PAR1": "is a Parquet file; set ds_type: parquet",
    b"ARROW1": "is an Arrow file; set ds_type: arrow",
}


def read_rows(path: Path, ds_type: str) -> Iterator[LocatedRow]:
    """Yield the rows of ``path``, a file of ``ds_type`` (a key of :data:`READERS`).

    Raises DataError naming file and line or row: unreadable file, wrong encoding, invalid JSON, a row that is
    not an object, a damaged table, a file without rows.
    """
    count = 0
    try:
        if not path.is_file():
            raise DataError(f"{path}: is not a regular file; data is read from files only")
        for row, where in READERS[ds_type](path):
            count += 1
            yield row, where
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not count:
        state = "has no rows" if path.stat().st_size else "is empty"
        raise DataError(f"{path}: {state}; a data file needs at least one row")


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield ``(line number, byte offset, line)`` for LF, CRLF and CR line ends, without a leading BOM."""
    number = offset = 0
    with path.open("rb") as file:
        _refuse_foreign(path, file.peek(8)[:8])
        for chunk in file:
            body = chunk.removesuffix(b"\n").removesuffix(b"\r")
            start = offset
            # A bare CR never stands inside a JSON string, so it can only be a line end.
            for part in body.split(b"\r"):
                number += 1
                bom = len(BOM) if number == 1 and part.startswith(BOM) else 0
                yield number, start + bom, part[bom:]
                start += len(part) + 1
            offset += len(chunk)


def _refuse_foreign(path: Path, head: bytes) -> None:
    """Raise DataError where the first bytes belong to another kind of file."""
    for magic, reason in FOREIGN_HEADS.items():
        if head.startswith(magic):
            raise DataError(f"{path}: {reason}")
    if b"\x00" in head:
        raise DataError(f"{path}: holds NUL bytes; it is binary or UTF-16, and must be UTF-8 text")


def _not_utf8(path: Path) -> DataError:
    """Build the error for a file whose text is not UTF-8, naming line and byte."""
    for number, offset, line in _lines(path):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            return DataError(
                f"{path}:{number}: is not UTF-8 (byte 0x{line[error.start]:02x} at offset "
                f"{offset + error.start}); save the file as UTF-8 (iconv -f LATIN1 -t UTF-8)"
            )
    raise AssertionError("only called after a decoding error")


def _read_json(path: Path) -> Iterator[LocatedRow]:
    """Read a JSON array of objects, or one object a line; the content decides, not the extension."""
    lines = ((number, line) for number, _, line in _lines(path) if line.strip())
    first = next(lines, None)
    if first is None:
        return iter(())
    if first[1].lstrip().startswith(b"["):
        return _json_array(path)
    try:
        orjson.loads(first[1])
    except orjson.JSONDecodeError as error:
        if error.msg == "unexpected end of data":
            return _json_array(path)
    return _json_lines(path, chain([first], lines))


def _json_lines(path: Path, lines: Iterable[tuple[int, bytes]]) -> Iterator[LocatedRow]:
    for number, line in lines:
        where = f"{path}:{number}"
        yield _object(_parse(path, line, first_line=number), where), where


def _json_array(path: Path) -> Iterator[LocatedRow]:
    content = _parse(path, path.read_bytes().removeprefix(BOM), first_line=1)
    if not isinstance(content, list):
        raise DataError(f"{path}: holds {_kind(content)}; expected an array of objects, or one object a line")
    for index, row in enumerate(content, 1):
        where = f"{path} row {index}"
        yield _object(row, where), where


def _parse(path: Path, text: bytes, first_line: int) -> Any:
    """Parse JSON text that starts on ``first_line`` of ``path``."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        text.decode()  # invalid UTF-8 is reported as such, not as invalid JSON
        line = first_line + error.lineno - 1
        raise DataError(
            f"{path}:{line}: is not valid JSON (column {error.colno}: {error.msg}); expected one "
            "object a line, or one array of objects"
        ) from None


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f'{where}: the row is {_kind(value)}, not an object with columns such as {{"text": …}}')
    return value


def _kind(value: Any) -> str:
    """Name a parsed JSON value in JSON's words."""
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")


def _read_text(path: Path) -> Iterator[LocatedRow]:
    for number, _, line in _lines(path):
        if line.strip():
            yield {"text": line.decode()}, f"{path}:{number}"


def _read_csv(path: Path) -> Iterator[LocatedRow]:
    return _read_separated(path, ",")


def _read_tsv(path: Path) -> Iterator[LocatedRow]:
    return _read_separated(path, "\t")


def _read_separated(path: Path, separator: str) -> Iterator[LocatedRow]:
    """Read CSV or TSV with a header line; every value is a string."""
    csv.field_size_limit(sys.maxsize)  # the limit of 128 KiB is shorter than a long document
    with path.open("rb") as file:
        _refuse_foreign(path, file.peek(8)[:8])
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        try:
            header = _header(next(reader, []), path)
            start = reader.line_num + 1
            for values in reader:
                where, start = f"{path}:{start}", reader.line_num + 1
                if not values:
                    continue
                if len(values) != len(header):
                    raise DataError(f"{where}: has {len(values)} fields where the header has {len(header)}")
                yield dict(zip(header, values, strict=True)), where
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: is not valid CSV ({error})") from None


def _header(names: list[str], path: Path) -> list[str]:
    for name in names:
        if not name.strip() or names.count(name) > 1:
            raise DataError(f"{path}:1: the header needs a different name for each column, found {names}")
    return names


def _read_parquet(path: Path) -> Iterator[LocatedRow]:
    try:
        yield from _table_rows(path, pq.ParquetFile(path, memory_map=True).iter_batches(batch_size=1000))
    except pa.ArrowException as error:
        raise DataError(f"{path}: is not a readable Parquet file ({error})") from error


def _read_arrow(path: Path) -> Iterator[LocatedRow]:
    """Read an Arrow file in either of its two layouts, the stream and the file."""
    try:
        with pa.memory_map(str(path)) as source:
            if source.size() and source.read(6) == b"ARROW1":
                reader = pa.ipc.open_file(source)
                yield from _table_rows(path, map(reader.get_batch, range(reader.num_record_batches)))
            else:
                source.seek(0)
                yield from _table_rows(path, pa.ipc.open_stream(source))
    except pa.ArrowException as error:
        raise DataError(f"{path}: is not a readable Arrow file ({error})") from error


def _table_rows(path: Path, batches: Iterable[Any]) -> Iterator[LocatedRow]:
    index = 0
    for batch in batches:
        for start in range(0, batch.num_rows, 1000):
            for row in batch.slice(start, 1000).to_pylist():
                index += 1
                yield row, f"{path} row {index}"


READERS: dict[str, Callable[[Path], Iterator[LocatedRow]]] = {
    "json": _read_json,
    "jsonl": _read_json,
    "csv": _read_csv,
    "tsv": _read_tsv,
    "parquet": _read_parquet,
    "arrow": _read_arrow,
    "text": _read_text,
}
"""The reader of each ``ds_type``."""
