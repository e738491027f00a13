"""The cache gives what `encode` gives, once made; no other content finds it, damage is mended, and it stays small."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from transformers import CanineTokenizer

from rankopt.tasks import encoded_cache
from rankopt.tasks.base import Task
from rankopt.tasks.encode import Encoded
from rankopt.tasks.encoded_cache import encode_once
from rankopt.tasks.glue import GLUE
from tests.tasks.test_encode import WORDS, pairs, single, tokenizer

TOKENIZER = tokenizer()
FILMS = single(["a film of rare warmth", "rain", "a rare film and rain"])


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Sizes of the splits that were really encoded; the cache is a fresh folder."""
    sizes: list[int] = []
    encode = Task.tokenise

    def counted(task: Task, dataset: Dataset, *others: Any) -> Encoded:
        sizes.append(len(dataset))
        return encode(task, dataset, *others)

    monkeypatch.setattr(Task, "tokenise", counted)
    monkeypatch.setenv("RANKOPT_CACHE", str(tmp_path))
    return sizes


def files(folder: Path) -> list[Path]:
    return sorted((folder / "encoded").iterdir())


def same(a: Encoded, b: Encoded) -> bool:
    return all(
        x is y is None or (np.asarray(x).dtype == np.asarray(y).dtype and np.array_equal(x, y))
        for x, y in zip(vars(a).values(), vars(b).values(), strict=True)
    )


@pytest.mark.parametrize("segments", [True, False])
def test_once(made: list[int], tmp_path: Path, segments: bool) -> None:
    """The second call reads: the same arrays and types, whether or not the tokenizer has segments; one file is left."""
    words = tokenizer(segments)
    first, second = (encode_once(GLUE["sst2"], FILMS, words, 8) for _ in range(2))
    assert made == [3]
    assert same(first, second)
    assert same(first, GLUE["sst2"].tokenise(FILMS, words, 8))
    assert len(files(tmp_path)) == 1


def test_a_tokenizer_in_python_is_asked_every_time(made: list[int], tmp_path: Path) -> None:
    """It has no state that could be told from another's."""
    words: Any = CanineTokenizer()
    first, second = (encode_once(GLUE["sst2"], FILMS, words, 8) for _ in range(2))
    assert made == [3, 3]
    assert same(first, second)
    assert first.lengths.tolist() == [8, 6, 8]
    assert not (tmp_path / "encoded").exists()


def test_an_equal_tokenizer_finds_it_whatever_it_did_before(made: list[int]) -> None:
    """Truncation and padding are set by every call and part of no key."""
    encode_once(GLUE["sst2"], FILMS, TOKENIZER, 8)
    other = tokenizer()
    other(["a film"], padding="max_length", truncation=True, max_length=5)
    encode_once(GLUE["sst2"], FILMS, other, 8)
    assert made == [3]


def test_other_content_does_not(made: list[int]) -> None:
    """Another text, label, order, length, column, tokenizer or kind of label is another file."""
    relabelled = FILMS.remove_columns("label").add_column("label", [1, 1, 0])
    two = pairs([("a film", "rain"), ("rain", "a film")])
    swapped = two.rename_columns({"sentence1": "sentence2", "sentence2": "sentence1"})
    shifted = tokenizer()
    shifted.add_tokens(["warm"])
    splitting = tokenizer()
    splitting.split_special_tokens = True
    calls = [
        (GLUE["sst2"], FILMS, TOKENIZER, 8),
        (GLUE["sst2"], FILMS, TOKENIZER, 7),
        (GLUE["sst2"], FILMS, tokenizer(segments=False), 8),
        (GLUE["sst2"], FILMS, shifted, 8),
        (GLUE["sst2"], FILMS, splitting, 8),
        (GLUE["sst2"], FILMS.select([1, 0, 2]), TOKENIZER, 8),
        (GLUE["sst2"], FILMS.select([0, 1]), TOKENIZER, 8),
        (GLUE["sst2"], relabelled, TOKENIZER, 8),
        (GLUE["stsb"], two, TOKENIZER, 8),
        (GLUE["stsb"], swapped, TOKENIZER, 8),
    ]
    for call in calls:
        encode_once(*call)
    assert len(made) == len(calls)
    assert "warm" not in WORDS


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "no zip"])
def test_a_damaged_file_is_made_again(made: list[int], tmp_path: Path, damage: str) -> None:
    """Never read, never an error, and mended."""
    first = encode_once(GLUE["sst2"], FILMS, TOKENIZER, 8)
    (file,) = files(tmp_path)
    content = bytearray(file.read_bytes())
    place = content.index(first.ids.tobytes())
    content[place] ^= 1
    broken = {"cut": content[: len(content) // 2], "flipped": content, "empty": b"", "no zip": b"no zip at all"}[damage]
    file.write_bytes(broken)
    assert same(encode_once(GLUE["sst2"], FILMS, TOKENIZER, 8), first)
    assert same(encode_once(GLUE["sst2"], FILMS, TOKENIZER, 8), first)
    assert made == [3, 3]
    assert files(tmp_path) == [file]


def test_no_flipped_bit_is_believed(tmp_path: Path) -> None:
    """Of a zip's every part: names, sums, methods, headers."""
    first = encode_once(GLUE["sst2"], FILMS, TOKENIZER, 8)
    (file,) = files(tmp_path)
    content = file.read_bytes()
    for place in range(0, len(content), 3):
        broken = bytearray(content)
        broken[place] ^= 1 << place % 8
        file.write_bytes(broken)
        assert same(encode_once(GLUE["sst2"], FILMS, TOKENIZER, 8), first), place


def test_a_file_that_may_only_be_read(made: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's: its time cannot be set, but it serves."""

    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    for _ in range(2):
        encode_once(GLUE["sst2"], FILMS, TOKENIZER, 8)
    assert made == [3]


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    left = tmp_path / "encoded" / "tmpabc"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    encode_once(GLUE["sst2"], FILMS, TOKENIZER, 8)
    assert not left.exists()


def test_a_cache_that_cannot_be_written(made: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Costs time and nothing else."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("RANKOPT_CACHE", str(tmp_path / "file"))
    first, second = (encode_once(GLUE["sst2"], FILMS, TOKENIZER, 8) for _ in range(2))
    assert same(first, second)
    assert made == [3, 3]


def test_it_stays_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was read longest ago goes first; the newest stays even where it alone is too much."""
    for length in (6, 7):
        encode_once(GLUE["sst2"], FILMS, TOKENIZER, length)
    for file in files(tmp_path):
        os.utime(file, (0, 0))
    encode_once(GLUE["sst2"], FILMS, TOKENIZER, 6)  # read again: no longer the oldest
    (read,) = [file for file in files(tmp_path) if file.stat().st_mtime > 0]
    monkeypatch.setattr(encoded_cache, "MOST", int(2.5 * read.stat().st_size))
    encode_once(GLUE["sst2"], FILMS, TOKENIZER, 8)
    assert read in files(tmp_path)
    assert len(files(tmp_path)) == 2
    monkeypatch.setattr(encoded_cache, "MOST", 1)
    encode_once(GLUE["sst2"], FILMS, TOKENIZER, 5)
    assert len(files(tmp_path)) == 1
