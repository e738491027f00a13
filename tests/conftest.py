"""What every test shares: one thread, the same property-test examples on every run, and a world small enough to train.

The small world is a random BERT of two blocks with a word-level tokenizer, and GLUE-shaped folders of invented
sentences whose label is a rule that such a model can learn.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("rankopt", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("rankopt")

GOOD, BAD = ("bright", "lovely", "brave", "warm"), ("dull", "sour", "flat", "cold")
PLAIN = ("film", "road", "song", "window", "river", "coat", "letter", "garden")

# in the background of a shell that ignores Ctrl-C, the programs that tests interrupt would ignore it too
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

collect_ignore = ["bench"]  # programs that import one another as scripts do


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def _nothing_old_is_collected() -> None:
    """Every training ends with a garbage collection, which would look at all that was imported."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _warm_workers() -> Iterator[None]:
    """Workers that tests start from this process are forked from a warm one; `test_main` and `test_run` start cold."""
    import warm_process

    context = multiprocessing.get_context

    def warm(method: str | None = None) -> Any:
        return warm_process.WarmContext if method == "spawn" else context(method)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", warm)
        yield


@pytest.fixture
def cold_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers start as they do for a user."""
    monkeypatch.setattr(multiprocessing, "get_context", multiprocessing.context._default_context.get_context)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """One token per word, BERT's special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *GOOD, *BAD, *PLAIN)
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A folder with a random BERT encoder (no head), its config and its tokenizer."""
    import torch
    from tiny_models import NO_DROPOUT, tiny_config
    from transformers import BertModel

    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    config = tiny_config(
        vocab_size=len(tiny_tokenizer), hidden_size=32, intermediate_size=48, initializer_range=0.2, **NO_DROPOUT
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in GLUE's layout: `sst2` (good or bad words?) and `stsb` (5 times the share of words in common)."""
    import pandas as pd

    folder, draw = tmp_path_factory.mktemp("glue"), random.Random(0)
    for split, rows in (("train", 104), ("validation", 24)):
        for task, make in (("sst2", _opinion), ("stsb", _pair)):
            (folder / task).mkdir(exist_ok=True)
            pd.DataFrame([make(draw, i) for i in range(rows)]).to_parquet(folder / task / f"{split}.parquet")
    return folder


def _opinion(draw: random.Random, index: int) -> dict[str, Any]:
    words = draw.choices(GOOD if index % 2 else BAD, k=draw.randint(1, 4)) + draw.choices(PLAIN, k=draw.randint(1, 8))
    draw.shuffle(words)
    return {"sentence": " ".join(words), "label": index % 2}


def _pair(draw: random.Random, index: int) -> dict[str, Any]:
    first = draw.sample(GOOD + BAD + PLAIN, k=6)
    second = [word if draw.random() < index % 7 / 6 else draw.choice(GOOD + BAD + PLAIN) for word in first]
    same = sum(a == b for a, b in zip(first, second, strict=True))
    return {"sentence1": " ".join(first), "sentence2": " ".join(second), "label": 5.0 * same / 6}


@pytest.fixture(scope="session")
def tiny_trial(tiny_model: Path, tiny_glue: Path) -> Callable[..., dict[str, Any]]:
    """Plain data of a trial in the small world; dotted paths, written with `__`, change it."""
    from rankopt.core.path import with_path

    def make(**changes: Any) -> dict[str, Any]:
        data: dict[str, Any] = {
            "task": {"name": "sst2", "data_dir": str(tiny_glue), "search_examples": 24},
            "model": {"name": str(tiny_model), "max_rank": 4, "alpha": 4.0},
            "allocator": {"name": "uniform"},
            "budget": {"mean_rank": 2},
            "training": {"steps": 12, "batch_size": 16, "lr": 5.0e-3},
        }
        for path, value in changes.items():
            data = with_path(data, path.replace("__", "."), value)
        return data

    return make


@pytest.fixture(scope="session")
def tiny_spec(tiny_trial: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """The same as a `TrialSpec`."""
    from rankopt.core.spec import decode
    from rankopt.core.trial_spec import TrialSpec

    return lambda **changes: decode(TrialSpec, tiny_trial(**changes))


@pytest.fixture
def tiny_study(tmp_path: Path, tiny_trial: Callable[..., dict[str, Any]]) -> Callable[..., Path]:
    """Writes a study file of the small world and returns its path."""
    from rankopt.core.yaml import write

    def make(name: str = "tiny", space: dict[str, Any] | None = None, **changes: Any) -> Path:
        path = tmp_path / f"{name}.yaml"
        write({"name": name, "base": tiny_trial(**changes), "space": space or {"seed": [0, 1]}}, path)
        return path

    return make


@pytest.fixture(scope="session")
def rankopt() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a process of its own, on one thread: `rankopt("run", path, cwd=folder)`."""

    def run(*words: object, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rankopt", *map(str, words)]
        how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 280, "env": plain_environment()}
        return subprocess.run(command, cwd=cwd, **(how | more))

    return run


@pytest.fixture(scope="session")
def warm() -> Callable[..., subprocess.CompletedProcess[str]]:
    """As `rankopt`, in a process that has imported everything: for tests that start many."""
    import warm_process

    def run(*words: object, cwd: Path, **how: Any) -> subprocess.CompletedProcess[str]:
        return warm_process.run(words, **({"cwd": cwd, "environment": plain_environment()} | how))

    return run


@pytest.fixture
def here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in this process, which has imported everything already: `here("show", "tiny", cwd=folder)`."""

    from rankopt.cli import main

    def run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        command = ["rankopt", *map(str, words)]
        with monkeypatch.context() as patch:
            patch.chdir(cwd)
            patch.setattr("sys.argv", command)
            patch.delenv("COLUMNS", raising=False)
            code: Any = 0
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
        return subprocess.CompletedProcess(command, code, *capsys.readouterr())

    return run


def plain_environment() -> dict[str, str]:
    """This process's environment, on one thread and away from any W&B or cache settings of the machine."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "COLUMNS"))}
    return kept | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_trial: Callable[..., dict[str, Any]],
    warm: Callable[..., subprocess.CompletedProcess[str]],
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder in which `rankopt run` has run the study `tiny` with two workers and W&B offline, and what it printed:
    two allocators by two seeds, four trials. Look, and leave it as it is."""
    from rankopt.core.yaml import write

    folder = tmp_path_factory.mktemp("finished")
    space = {"allocator": [{"name": "uniform"}, {"name": "dylora"}], "seed": [0, 1]}
    write({"name": "tiny", "base": tiny_trial(), "space": space}, folder / "tiny.yaml")
    done = warm("run", "tiny.yaml", "--workers", 2, "--wandb", "offline", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done
