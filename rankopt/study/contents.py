"""Hash the files in a study's local folders, so that trials are identified by content and not by location."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from rankopt.core.folders import cache_folder, new_file
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.tasks import task_of
from rankopt.tasks.embedded import EMBEDDED
from rankopt.tasks.sources import files_of

Contents = dict[Literal["data", "files", "model"], dict[str, str]]
MODEL_FILES = (
    "config.json", "*.safetensors", "*.safetensors.index.json",
    "tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
"""What transformers reads of a model folder; pickled weights only if there are no others."""
DIGITS = 16
"""Hexadecimal digits of a hash."""


def local_contents(specs: Iterable[TrialSpec]) -> Contents:
    """The value of `StudySpec.contents` for a study of these trials."""
    found: Contents = {"data": {}, "files": {}, "model": {}}
    for spec in specs:
        for task in spec.tasks.values():
            location = f"{task.data_dir}/{task.name}"
            if task.data_dir is not None and location not in found["data"]:
                files = task_of(task).files(task.data_dir)
                if files:
                    found["data"][location] = _hash_files(files)
            for source in task.files.values():
                if source not in found["files"]:
                    found["files"][source] = _hash_sequence(files_of(source))
        if spec.model.name not in (*EMBEDDED, *found["model"]) and Path(spec.model.name).is_dir():
            found["model"][spec.model.name] = _hash_files(_model_files(Path(spec.model.name)))
    return {kind: hashes for kind, hashes in found.items() if hashes}


def refuse_other_contents(study: StudySpec, found: Contents) -> None:
    """Raise a ValueError if this machine's folders differ from those that the study was planned with."""
    for kind, hashes in study.contents.items():
        for location, expected in hashes.items():
            got = found.get(kind, {}).get(location, expected)
            if got != expected:
                what = "data" if kind == "files" else f"{kind} files"
                raise ValueError(
                    f"the {what} in {location} must be those that study {study.name!r} was planned with "
                    f"(hash {expected}), got hash {got}; copy them from the machine that planned it"
                )


def _model_files(folder: Path) -> list[Path]:
    files = [file for pattern in MODEL_FILES for file in sorted(folder.glob(pattern)) if file.is_file()]
    return files if any(file.suffix == ".safetensors" for file in files) else [*files, *sorted(folder.glob("*.bin"))]


def _hash_files(files: Iterable[Path]) -> str:
    content = sorted((file.name, _hash_file(file)) for file in set(files))
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:DIGITS]


def _hash_sequence(files: Iterable[Path]) -> str:
    """The hash of files in the order in which they are read, whatever their names."""
    return hashlib.sha256(json.dumps([_hash_file(file) for file in files]).encode()).hexdigest()[:DIGITS]


def _hash_file(file: Path) -> str:
    """A file's hash, from the cache if its size and modification time are unchanged."""
    path, status = file.resolve(), file.stat()
    state = [str(path), status.st_size, status.st_mtime_ns]
    cached = cache_folder() / "hashes" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(cached.read_text(encoding="utf-8"))
        if known["state"] == state:
            return str(known["hash"])
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()[: 2 * DIGITS]
    with suppress(OSError):  # a cache that cannot be written only costs time
        new_file(cached, json.dumps({"state": state, "hash": found}))
    return found
