"""Small models and data for trainings outside a study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_models import NO_DROPOUT, tiny_config
from torch import Tensor, nn
from transformers import BertForSequenceClassification, GPT2LMHeadModel, Trainer, TrainingArguments

Rows = list[dict[str, Tensor]]


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return BertForSequenceClassification(tiny_config(num_labels=2, initializer_range=0.2, **NO_DROPOUT))


def decoder() -> nn.Module:
    torch.manual_seed(0)
    dropouts = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    return GPT2LMHeadModel(tiny_config("gpt2", initializer_range=0.2, loss_type="ForCausalLM", **dropouts))


def classified(count: int = 48) -> Rows:
    """Sentences whose label is whether the first token is high."""
    ids = torch.randint(3, 30, (count, 8), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": (row[0] > 15).long()} for row in ids]


def sentences(count: int = 48) -> Rows:
    """Sequences that count upwards from a random token."""
    starts = torch.randint(3, 20, (count, 1), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": row.clone()} for row in starts + torch.arange(8)]


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Rows]]] = {
    "encoder": (encoder, classified),
    "decoder": (decoder, sentences),
}


def arguments(folder: Path, steps: int = 12, **changes: Any) -> TrainingArguments:
    """Arguments of a training without checkpoints and logs."""
    fields: dict[str, Any] = {
        "output_dir": str(folder), "max_steps": steps, "per_device_train_batch_size": 8, "learning_rate": 5e-3,
        "use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no",
    }  # fmt: skip
    return TrainingArguments(**(fields | changes))


def train(
    adapted: Any, rows: Any, folder: Path, *, resume: Any = None, callbacks: Any = None, **changes: Any
) -> Trainer:
    """Train an adapted model in a plain Trainer."""
    trainer = Trainer(
        model=adapted.model, args=arguments(folder, **changes), train_dataset=rows,
        callbacks=[adapted.callback()] if callbacks is None else callbacks,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def stacked(rows: Rows, count: int = 8) -> dict[str, Tensor]:
    """The first rows as one batch."""
    return {key: torch.stack([row[key] for row in rows[:count]]) for key in rows[0]}


def same_by_peft(fresh: nn.Module, folder: Path, adapted: Any, batch: dict[str, Any]) -> float:
    """The largest difference between the adapted model's logits and those of PEFT's model with the saved adapter."""
    from peft import PeftModel

    loaded = PeftModel.from_pretrained(fresh, str(folder)).eval()
    with torch.no_grad():
        ours, theirs = adapted.model.eval()(**batch), loaded(**batch)
    return float((ours.logits - theirs.logits).abs().max())
