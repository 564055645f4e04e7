"""Find the rows of one ``datasets`` entry: local files first, then the hub.

A source has a ``name`` for reports, streams located rows, and has a fingerprint that changes whenever its
content does.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from finetune.config.data import DatasetEntry
from finetune.data.rows import READERS, LocatedRow, read_rows
from finetune.errors import DataError, nearest

DS_TYPES = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
}
"""The ``ds_type`` that each file extension stands for; any other extension is read as json."""

SPLIT_WORDS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}
"""Words in a file or folder name that say which split the file belongs to, as the hub reads them."""


class Source(Protocol):
    """Where rows come from."""

    @property
    def name(self) -> str:
        """Name for reports: the path or the hub name."""
        ...

    def rows(self) -> Iterator[LocatedRow]:
        """Yield each row with the place where it stands."""
        ...

    def fingerprint(self) -> str:
        """Return a text that differs whenever the content differs."""
        ...


@dataclass(frozen=True)
class FileSource:
    """Local files, read in order."""

    name: str
    files: tuple[Path, ...]
    ds_type: str | None = None
    """The format of every file; default from each extension."""

    def rows(self) -> Iterator[LocatedRow]:
        """Yield the rows of each file.  Raises DataError with file and line."""
        for file in self.files:
            yield from read_rows(file, self.ds_type or DS_TYPES.get(file.suffix.lower(), "json"))

    def fingerprint(self) -> str:
        """Hash the bytes of every file: size and time do not show each edit."""
        digest = hashlib.sha256()
        for path in self.files:
            try:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        return digest.hexdigest()


@dataclass(frozen=True)
class HubSource:
    """A data set on the hub, downloaded by the ``datasets`` library and kept in its cache."""

    name: str
    entry: DatasetEntry = field(repr=False)

    def rows(self) -> Iterator[LocatedRow]:
        """Yield the rows of the split.  Raises DataError when the hub does not answer or has no such data."""
        split = self.entry.split or "train"
        for index, row in enumerate(self._table, 1):
            yield row, f"{self.name}[{split}] row {index}"

    def fingerprint(self) -> str:
        """Return the library's fingerprint, which covers the revision and the files behind it."""
        return f"{self.name}@{self.entry.revision}:{self._table._fingerprint}"

    @cached_property
    def _table(self) -> Any:
        import datasets  # noqa: PLC0415 - takes a second, and local data does not need it

        entry = self.entry
        split = entry.split or "train"
        try:
            return datasets.load_dataset(
                entry.path, name=entry.name, split=split, revision=entry.revision, data_files=entry.data_files
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(
                f"datasets: '{entry.path}' is not a local file or folder, and the hub gave no data for split "
                f"'{split}' ({_first_line(error)}); check the name, the network, HF_TOKEN for private data, "
                "or give the path of a local file"
            ) from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def open_source(entry: DatasetEntry) -> Source:
    """Find the data of ``entry``; a local path wins over a hub name.

    Raises DataError for a path that looks local and does not exist, with the nearest name in its folder, for
    a folder without data files, and for a remote address.
    """
    if "://" in entry.path:
        raise DataError(
            f"datasets: '{entry.path}' is a remote address; download the file and give its path, or name "
            "a data set on the hub"
        )
    path = Path(entry.path).expanduser()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if exists:
        _refuse_hub_keys(path, entry, is_folder)
        files = _folder_files(path, entry) if is_folder else (path,)
        return FileSource(entry.path, files, entry.ds_type)
    if entry.path in READERS and entry.data_files is not None:
        return FileSource(entry.path, _folder_files(Path(), entry), entry.ds_type or entry.path)
    if _looks_local(entry.path):
        raise _missing(path)
    return HubSource(entry.path, entry)


def _looks_local(path: str) -> bool:
    """Tell whether ``path`` can only be meant as a file or folder."""
    return path.startswith(("/", "./", "../", "~")) or Path(path).suffix.lower() in DS_TYPES or path.count("/") > 1


def _missing(path: Path) -> DataError:
    """Build the error for a path that does not exist, with the nearest name beside it."""
    folder = path.parent
    if not folder.is_dir():
        return DataError(f"{path}: does not exist, and neither does the folder {folder} (from {Path.cwd()})")
    return DataError(
        f"{path}: does not exist (from {Path.cwd()}).{nearest(path.name, (p.name for p in folder.iterdir()))}"
    )


def _refuse_hub_keys(path: Path, entry: DatasetEntry, is_folder: bool) -> None:
    """Raise DataError for a key that only means something on the hub; ignoring it would read other rows."""
    for key, value in {"name": entry.name, "revision": entry.revision}.items():
        if value is not None:
            raise DataError(f"{path}: is local, and {key} '{value}' chooses inside a hub data set; leave {key} out")
    if is_folder:
        return
    if entry.data_files is not None:
        raise DataError(
            f"{path}: is a file, so data_files has nothing to choose; leave it out, or make path the folder"
        )
    if entry.split not in (None, "train"):
        raise DataError(
            f"{path}: has no split '{entry.split}'; a local file has only the split 'train' (leave split "
            "out, or name the file of that split as path)"
        )


def _folder_files(folder: Path, entry: DatasetEntry) -> tuple[Path, ...]:
    """Choose the files of ``folder``: the named ones, or the data files of the wanted split."""
    try:
        if entry.data_files is not None:
            names = [entry.data_files] if isinstance(entry.data_files, str) else entry.data_files
            return tuple(file for name in names for file in _named_files(folder, name))
        found = sorted(p for p in folder.rglob("*") if _is_data_file(p, folder))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    if not found:
        raise DataError(f"{folder}: has no data files; expected files ending in {', '.join(DS_TYPES)}")
    return _files_of_split(folder, found, entry.split or "train")


def _is_data_file(path: Path, folder: Path) -> bool:
    """Tell data from the files that libraries leave beside it (hidden files, state.json and the like)."""
    hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    bookkeeping = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
    return path.suffix.lower() in DS_TYPES and path.name not in bookkeeping and not hidden and path.is_file()


def _named_files(folder: Path, name: str) -> list[Path]:
    """Resolve one ``data_files`` value, a path or a glob, inside ``folder``."""
    files = sorted(folder.glob(name)) if any(sign in name for sign in "*?[") else [folder / name]
    if not files:
        raise DataError(f"{folder}: data_files '{name}' matches no file")
    for file in files:
        if not file.exists():
            raise _missing(file)
    return files


def _files_of_split(folder: Path, files: list[Path], split: str) -> tuple[Path, ...]:
    """Keep the files of ``split``; files that name no split belong to train.

    Reading every file of a folder would train on its test files too.
    """
    kept = tuple(file for file in files if _split_of(file.relative_to(folder)) == split)
    if not kept:
        splits = sorted({_split_of(file.relative_to(folder)) for file in files})
        raise DataError(
            f"{folder}: has no files of split '{split}'; found {', '.join(splits)} (set split, or name "
            "the files with data_files)"
        )
    return kept


def _split_of(path: Path) -> str:
    words = set(re.split(r"[^a-z]+", str(path.with_suffix("")).lower()))
    return next((split for split, names in SPLIT_WORDS.items() if words & names), "train")
