"""The cached small encoder of the generated tasks; it is pretrained on first use."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

from rankopt.core.folders import cache_folder
from rankopt.tasks.mini_language import WORDS, corpus
from rankopt.tasks.mini_pretraining import CONFIG, TRAINING, pretrain

VERSION = 1  # increment it when the pretraining code changes; constants and language are part of the hash


Progress = Callable[[int, int], None]
"""Called with (finished steps, all steps)."""


def recipe_hash() -> str:
    """A hash of everything that determines the encoder: version, shape, training constants and language.

    >>> len(recipe_hash())
    12
    """
    recipe = [VERSION, CONFIG, TRAINING, WORDS, corpus(Random(0), 100)]
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]


def encoder_path(progress: Progress | None = None) -> Path:
    """The folder of the pretrained encoder, for `from_pretrained`. Pretrains it if necessary (about half a minute).

    Safe to call from several processes at once: one of them trains, the others wait.

    Args:
        progress: called with (finished steps, all steps) during pretraining; not called if the encoder exists.
    Returns:
        A folder with a BERT checkpoint and its tokenizer; its name contains `recipe_hash()`.
    Raises:
        OSError: the cache cannot be written.
    """
    return pretrained_once(cache_folder() / f"mini-encoder-{recipe_hash()}", pretrain, progress)


def pretrained_once(
    folder: Path, pretrain: Callable[[Path, Progress | None], None], progress: Progress | None = None
) -> Path:
    """A folder that `pretrain` fills, once for all processes.

    Args:
        folder: the finished one.
        pretrain: writes a checkpoint and its tokenizer into an existing folder.
        progress: handed to `pretrain`.
    Raises:
        OSError: the folder cannot be written.
    """
    if _whole(folder):
        return folder
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _whole(folder):
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as scratch:
                made = Path(scratch) / "model"
                made.mkdir()
                pretrain(made, progress)
                shutil.rmtree(folder, ignore_errors=True)  # an incomplete folder: a cache cleaner deleted some files
                made.rename(folder)  # atomic
    return folder


def _whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("config.json", "model.safetensors", "tokenizer.json"))
