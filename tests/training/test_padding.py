"""The padding side follows from the model, so that an example's logits do not depend on its batch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_config
from transformers import AutoModelForSequenceClassification

from rankopt.core.trial_spec import ModelSpec
from rankopt.tasks.glue import GLUE
from rankopt.training.data import load_data
from rankopt.training.evaluate import predict
from rankopt.training.model import load_adapted

CASES = {  # family and the tokenizer's side -> the side that is used
    ("gpt2", "left"): "right",  # learned absolute positions
    ("gpt2", "right"): "right",
    ("bert", "left"): "right",  # and a head that reads the first token
    ("llama", "left"): "left",  # relative positions
    ("llama", "right"): "right",
    ("xlnet", "left"): "left",  # a head that reads the last token
    ("xlnet", "right"): "left",
}


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_tokenizer: Any) -> Callable[[str, str], Path]:
    """Saves a random model of a family with a tokenizer that pads on a side."""

    def save(family: str, side: str) -> Path:
        config = tiny_config(family, vocab_size=len(tiny_tokenizer), pad_token_id=0)
        torch.manual_seed(1)
        net = AutoModelForSequenceClassification.from_config(config)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.normal_(std=0.3)
        net.save_pretrained(tmp_path)
        tiny_tokenizer.save_pretrained(tmp_path)
        path = tmp_path / "tokenizer_config.json"  # `save_pretrained` leaves the side out
        path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": side}))
        return tmp_path

    return save


@pytest.mark.parametrize(("family", "side"), CASES)
def test_logits_do_not_depend_on_the_batch(
    family: str, side: str, checkpoint: Callable[[str, str], Path], tiny_spec: Any
) -> None:
    """Every example has the same logits alone and in a padded batch; a changed side is a note of the result."""
    adapted = load_adapted(ModelSpec(name=str(checkpoint(family, side)), max_rank=2), "unit", GLUE["sst2"], 0)
    assert adapted.tokenizer.padding_side == CASES[family, side]
    data = load_data(tiny_spec().task, adapted.tokenizer).held_out["search"]
    alone, together = (predict(adapted, GLUE["sst2"], data, size, "fp32")["logits"] for size in (1, 24))
    assert alone.std() > 1e-3
    assert abs(alone - together).max() < 1e-4 * max(1.0, abs(alone).max())
    noted = any("padded on the" in note for note in adapted.notes)
    assert noted == (CASES[family, side] != side)
