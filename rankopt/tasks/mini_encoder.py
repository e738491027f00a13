"""Where the small encoder of the embedded tasks lives: pretrained on first use, then read from a cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

from rankopt.tasks.mini_language import WORDS, corpus
from rankopt.tasks.mini_pretraining import CONFIG, TRAINING, pretrain

VERSION = 1  # raise it when the code of pretraining changes: constants and language are in the hash already


def cache_folder() -> Path:
    """`$RANKOPT_CACHE`, else `rankopt` in `$XDG_CACHE_HOME`, else `~/.cache/rankopt`."""
    if chosen := os.environ.get("RANKOPT_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rankopt"


def recipe_hash() -> str:
    """A hash of all that makes the encoder what it is: version, shape, training constants and language.

    >>> len(recipe_hash())
    12
    """
    recipe = [VERSION, CONFIG, TRAINING, WORDS, corpus(Random(0), 100)]
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]


def encoder_path(progress: Callable[[int, int], None] | None = None) -> Path:
    """The folder of the pretrained encoder, for `from_pretrained`; makes it first if need be (about half a minute).

    Any number of processes may call this at once: one trains, the others wait for it.

    Args:
        progress: called with (steps done, steps in all) during pretraining; never called when the encoder exists.
    Returns:
        A folder with a BERT checkpoint and its tokenizer, named by the hash of the recipe.
    Raises:
        OSError: if the cache cannot be written.
    """
    folder = cache_folder() / f"mini-encoder-{recipe_hash()}"
    if _whole(folder):
        return folder
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _whole(folder):
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as scratch:
                made = Path(scratch) / "encoder"
                made.mkdir()
                pretrain(made, progress)
                shutil.rmtree(folder, ignore_errors=True)  # a cleaner of caches has taken some of its files
                made.rename(folder)  # complete or absent, never half written
    return folder


def _whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("config.json", "model.safetensors", "tokenizer.json"))
