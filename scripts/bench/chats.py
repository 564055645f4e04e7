"""Chats made from a seed: English prose and Python code of the standard library, cut into turns."""

import argparse
import difflib
import http.client
import inspect
import json
import logging
import pathlib
import random
import subprocess
import tarfile
import textwrap
import typing
import unittest.mock
from pydoc_data.topics import topics

MODULES = (argparse, difflib, http.client, logging, pathlib, subprocess, tarfile, textwrap, typing, unittest.mock)


def write_chats(path: pathlib.Path, num_rows: int, seed: int, size: float = 1.0) -> None:
    """Write ``num_rows`` chats of one to three exchanges, about ``size`` x 500 tokens each, as lines of JSON."""
    lines = [line for text in topics.values() for line in text.splitlines()]
    lines += [line for module in MODULES for line in inspect.getsource(module).splitlines()]
    rng = random.Random(seed)  # noqa: S311 - rows, not secrets
    with path.open("w", encoding="utf-8") as file:
        for _ in range(num_rows):
            file.write(json.dumps({"messages": _messages(lines, rng, size)}, ensure_ascii=False) + "\n")


def _messages(lines: list[str], rng: random.Random, size: float) -> list[dict[str, str]]:
    system = [{"role": "system", "content": "You are a helpful assistant."}] if rng.random() < 0.3 else []
    turns = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        turns.append({"role": "user", "content": _text(lines, rng, int(size * rng.randint(40, 440)))})
        turns.append({"role": "assistant", "content": _text(lines, rng, int(size * rng.randint(100, 1560)))})
    return [*system, *turns]


def _text(lines: list[str], rng: random.Random, num_characters: int) -> str:
    start = rng.randrange(len(lines))
    taken: list[str] = []
    while sum(map(len, taken)) < num_characters:
        taken.append(lines[start % len(lines)])
        start += 1
    return "\n".join(taken).strip()
