"""A dry run of one batch finds models that would fail at their first batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import tiny_config

from rankopt.core.trial_spec import ModelSpec
from rankopt.tasks.encode import Encoded
from rankopt.tasks.problems import Classification
from rankopt.training.data import Data
from rankopt.training.dry_run import check_batch
from rankopt.training.pretrained import load_tokenizer

# longest text that runs, at 40 position embeddings: RoBERTa's begin behind the padding index
PROBLEM = Classification(("no", "yes"))
LIMITS = {"bert": 40, "roberta": 39, "opt": 40, "bart": 40, "openai-gpt": 40, "gpt2": 40, "distilbert": 40, "xlm": 40}
UNLIMITED = ["llama", "bloom", "xlnet"]


def data_of(lengths: list[int], largest: int = 5) -> Data:
    """Examples of these lengths, which end with the separator."""
    rows = [np.array([*[largest] * (length - 1), 3], np.int32) for length in lengths]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    encoded = Encoded(np.concatenate(rows), None, offsets, np.zeros(len(lengths), np.int64))
    return Data(encoded, {"search": encoded}, "", ())


@pytest.fixture
def folder(tmp_path: Path, tiny_tokenizer: Any) -> Callable[..., ModelSpec]:
    """Saves a config and a tokenizer, without weights."""

    def save(family: str, **changes: Any) -> ModelSpec:
        tiny_config(family, pad_token_id=0, **changes).save_pretrained(tmp_path)
        tiny_tokenizer.save_pretrained(tmp_path)
        return ModelSpec(name=str(tmp_path), max_rank=2)

    return save


@pytest.mark.parametrize("family", LIMITS)
def test_positions(family: str, folder: Callable[..., ModelSpec]) -> None:
    """The longest text that runs is found by running it, whatever the family calls its positions."""
    spec, limit = folder(family), LIMITS[family]
    check_batch(spec, data_of([limit, 4]), 64, PROBLEM)
    message = rf"task\.max_length must be at most {limit}, the number of positions of .*, got 64"
    for length in (limit + 1, 64):
        with pytest.raises(ValueError, match=message):
            check_batch(spec, data_of([4, length]), 64, PROBLEM)


@pytest.mark.parametrize("family", UNLIMITED)
def test_no_positions(family: str, folder: Callable[..., ModelSpec]) -> None:
    """Models with relative positions take any length."""
    check_batch(folder(family), data_of([300, 4]), 300, PROBLEM)


def test_a_token_without_an_embedding(folder: Callable[..., ModelSpec]) -> None:
    """A tokenizer with more tokens than the model has embeddings is named, with the token."""
    spec = folder("llama", vocab_size=9)
    check_batch(spec, data_of([6, 4], largest=8), 8, PROBLEM)
    with pytest.raises(ValueError, match=r"model\.name must have an embedding for every token .* token 12 \('"):
        check_batch(spec, data_of([6, 4], largest=12), 8, PROBLEM)


def test_a_pad_token_without_an_embedding(folder: Callable[..., ModelSpec], tiny_tokenizer: Any) -> None:
    """It fails in a batch of two lengths only; the message says what to set."""
    from copy import deepcopy

    spec = folder("llama", vocab_size=len(tiny_tokenizer))
    tokenizer = deepcopy(tiny_tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(spec.name)
    load_tokenizer.cache_clear()
    assert load_tokenizer(spec.name).pad_token_id == len(tiny_tokenizer)
    check_batch(spec, data_of([6, 6]), 8, PROBLEM)
    with pytest.raises(ValueError, match=r"must have an embedding for its pad token '<pad>' .*tokenizer_config\.json"):
        check_batch(spec, data_of([6, 4]), 8, PROBLEM)


def test_the_preflight_runs_it(tiny_study: Callable[..., Path], folder: Callable[..., ModelSpec]) -> None:
    """A study with such a model is refused before it starts, at the line of the field."""
    from rankopt.core.errors import InvalidSpecError
    from rankopt.core.study_file import StudyFile
    from rankopt.study.plan import validated_trials
    from rankopt.study.preflight import preflight

    spec = folder("opt", max_position_embeddings=6)
    file = StudyFile(tiny_study(model__name=spec.name))
    with pytest.raises(InvalidSpecError, match=r"task.*max_length must be at most 6, the number of positions"):
        preflight(file, validated_trials(file))
