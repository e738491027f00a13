"""One training, driven by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tiny_models import tiny_config
from transformers import AutoModel

from rankopt.core.progress import Control
from rankopt.core.trial_spec import TrialSpec
from rankopt.tasks.encode import Encoded
from rankopt.training import train as train_module
from rankopt.training.model import Adapted
from rankopt.training.prepare import prepare as prepare_trial
from rankopt.training.train import build_trainer
from rankopt.training.trainer import TrialTrainer
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
        trainer = build_trainer(prepared, tmp_path, Control(checkpoint_steps=prepared.steps))
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


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, snapshot: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """What every training in this process ends with: factors, gates, masks, head, the allocator's state, moments and
    the record, bit for bit."""
    ends: list[dict[str, Any]] = []

    class Watched(TrialCallback):
        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            super().on_train_end(*args, **kwargs)
            net, optimizer, layers = kwargs["model"], kwargs["optimizer"], self.hooks.layers
            trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
            ends.append(
                {
                    "step": args[1].global_step,
                    "weights": snapshot(trained),
                    "masks": {n: (snapshot(y.m), y.rank, y.initial, y.s, y.frozen) for n, y in layers.items()},
                    "state": snapshot(self.hooks.state),
                    "moments": snapshot([optimizer.state[p] for p in trained.values()]),
                    "record": snapshot([self.losses, self.hooks.ranks, self.sums]),
                }
            )

    monkeypatch.setattr(train_module, "TrialCallback", Watched)
    return ends


@pytest.fixture
def by_peft(tiny_model: Path, tiny_glue: Path, tiny_tokenizer: Any) -> Callable[[Path], tuple[Any, Any]]:
    """What PEFT makes of an adapter's folder: logits of the validation split, with the adapter and without it."""
    import pandas as pd
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    sentences = pd.read_parquet(tiny_glue / "sst2" / "validation.parquet")["sentence"].tolist()
    inputs = tiny_tokenizer(sentences, padding=True, return_tensors="pt")

    @torch.no_grad()
    def logits(folder: Path) -> tuple[Any, Any]:
        base = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
        model = PeftModel.from_pretrained(base, folder).eval()
        adapted = model(**inputs).logits.numpy()
        with model.disable_adapter():
            return adapted, model(**inputs).logits.numpy()

    return logits
