"""One training, driven by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tiny_models import tiny_config
from transformers import AutoModel

from rankopt.core.trial_spec import TrialSpec
from rankopt.tasks.encode import Encoded
from rankopt.training.model import Adapted
from rankopt.training.trainer import TrialTrainer
from rankopt.training.trial import build_trainer
from rankopt.training.trial import prepare as prepare_trial
from rankopt.training.trial_callback import TrialCallback


class Training(NamedTuple):
    """A trial before its first step."""

    trainer: TrialTrainer
    adapted: Adapted
    train: Encoded
    callback: TrialCallback


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[[TrialSpec], Training]:
    """Prepare a trial and build its Trainer, without training."""

    def make(spec: TrialSpec) -> Training:
        prepared = prepare_trial(spec)
        trainer = build_trainer(prepared, tmp_path, checkpoint_steps=prepared.steps)
        return Training(trainer, prepared.adapted, prepared.data.train, trainer.events)

    return make


@pytest.fixture
def snapshot() -> Callable[[Any], Any]:
    """A deep copy of anything made of mappings, sequences and tensors, tensors as (dtype, shape, bytes): equality of
    two snapshots is equality bit for bit."""

    def copy(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return str(value.dtype), tuple(value.shape), value.detach().cpu().contiguous().numpy().tobytes()
        if isinstance(value, dict):
            return {key: copy(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [copy(item) for item in value]
        return value

    return copy


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_tokenizer: Any) -> Callable[..., Path]:
    """Saves a random encoder of a family, or a given model, with the tokenizer; returns the folder."""

    def save(family: str, model: Any = None, **saved: Any) -> Path:
        folder = tmp_path / family
        torch.manual_seed(1)
        (model or AutoModel.from_config(tiny_config(family))).save_pretrained(folder, **saved)
        tiny_tokenizer.save_pretrained(folder)
        return folder

    return save
