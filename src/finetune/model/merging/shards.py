"""Safetensors files read and written in pieces, so that memory does not grow with the model.

The format: eight bytes with the length of a JSON header, the header (name to dtype, shape and offsets), the data.
Files are read with plain reads: pages of a memory map would count as this process's memory until they are evicted.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from finetune.disk import storage_fault
from finetune.errors import CheckpointError, ModelError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Dtypes of safetensors that are read as tensors; others (8-bit floats) are only copied, as bytes."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}
Piece = bytes | memoryview
CHUNK_BYTES = 8 * 1024 * 1024
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    name: str
    file: Path
    dtype: str
    """As safetensors calls it: BF16, F32 …"""
    shape: tuple[int, ...]
    offset: int
    """Where its first byte is in the file."""
    num_bytes: int

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """The dtype as torch calls it; None for one that is only copied."""
        return DTYPES.get(self.dtype)

    @property
    def is_float(self) -> bool:
        return self.torch_dtype is not None and self.torch_dtype.is_floating_point

    @property
    def row_bytes(self) -> int:
        """Bytes of one index of the first dimension; of the whole where there is none."""
        return self.num_bytes // self.shape[0] if self.shape and self.shape[0] else self.num_bytes

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Read ``[start:stop]`` of the first dimension."""
        assert self.torch_dtype is not None
        raw = read_bytes(self.file, self.offset + start * self.row_bytes, (stop - start) * self.row_bytes)
        return torch.frombuffer(raw, dtype=self.torch_dtype).reshape(stop - start, *self.shape[1:])

    def whole(self) -> torch.Tensor:
        """Read the tensor."""
        assert self.torch_dtype is not None
        if not self.num_bytes:
            return torch.empty(self.shape, dtype=self.torch_dtype)
        return torch.frombuffer(read_bytes(self.file, self.offset, self.num_bytes), dtype=self.torch_dtype).reshape(
            self.shape
        )


def read_bytes(file: Path, offset: int, count: int) -> bytearray:
    """Read exactly ``count`` bytes; raises ModelError where the file ends before."""
    raw = bytearray(count)
    view = memoryview(raw)
    with file.open("rb", buffering=0) as handle:
        handle.seek(offset)
        done = 0
        while done < count:
            got = handle.readinto(view[done:])
            if not got:
                raise ModelError(f"{file}: the file ends too early; copy or download it again")
            done += got
    return raw


def read_header(file: Path) -> list[Stored]:
    """List the tensors of ``file`` in the order of their data.

    Raises:
        ModelError: the file is damaged or cut off.
    """
    try:
        with safe_open(file, framework="pt"):
            pass  # checks the header against the size of the file
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: the weights file is damaged ({error}); copy or download it again") from error
    length = int.from_bytes(read_bytes(file, 0, 8), "little")
    header = json.loads(bytes(read_bytes(file, 8, length)))
    header.pop("__metadata__", None)
    stored = []
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        stored.append(Stored(name, file, entry["dtype"], tuple(entry["shape"]), 8 + length + begin, end - begin))
    return sorted(stored, key=lambda tensor: tensor.offset)


def read_headers(folder: Path) -> dict[str, list[Stored]]:
    """Return the tensors of each weights file of a model folder, by the file's name, as transformers would find them.

    Raises:
        ModelError: a file of the index is missing, or one is damaged.
    """
    index = folder / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError) as error:
            raise ModelError(f"{index} cannot be read ({error}); copy or download the model again") from error
    else:
        names = ["model.safetensors"]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{folder}: {missing[0]} is missing; the copy or download stopped half-way")
    return {name: read_header(folder / name) for name in names}


@dataclass(frozen=True)
class Shape:
    """What a tensor will be in a file that is written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int


def write_file(file: Path, tensors: Sequence[tuple[Shape, Iterable[Piece]]]) -> None:
    """Write a safetensors file from pieces and force it to disk.

    Raises:
        CheckpointError: the disk is full or cannot be written.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for shape, _ in tensors:
        offsets = [offset, offset + shape.num_bytes]
        header[shape.name] = {"dtype": shape.dtype, "shape": shape.shape, "data_offsets": offsets}
        offset += shape.num_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    try:
        with file.open("wb", buffering=0) as handle:
            for piece in _pieces(len(text).to_bytes(8, "little") + text, tensors):
                _write_all(handle.fileno(), memoryview(piece).cast("B"))
            assert handle.tell() == 8 + len(text) + offset, "a tensor is not as large as the header says"
            os.fsync(handle.fileno())
    except OSError as error:
        if storage_fault(error):
            raise  # who publishes the folder says what is free there
        raise CheckpointError(f"{file} cannot be written ({error.strerror}); give another --output") from error


def _pieces(head: bytes, tensors: Sequence[tuple[Shape, Iterable[Piece]]]) -> Iterator[Piece]:
    yield head
    for _, pieces in tensors:
        yield from pieces


def _write_all(descriptor: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(descriptor, piece) :]


def as_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the memory of a contiguous CPU tensor."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def copied(stored: Stored) -> Iterator[memoryview]:
    """Yield the bytes of a tensor that stays as it is."""
    for start in range(0, stored.num_bytes, CHUNK_BYTES):
        yield memoryview(read_bytes(stored.file, stored.offset + start, min(CHUNK_BYTES, stored.num_bytes - start)))


def num_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of a dtype that torch knows."""
    return prod(shape) * DTYPES[dtype].itemsize
