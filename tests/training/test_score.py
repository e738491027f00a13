"""What a trained model's scores are of, and the files that scoring leaves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankopt.allocators import ALLOCATORS
from rankopt.core.trial_spec import TrialSpec
from rankopt.lowrank.export import cut_peft
from rankopt.training.trainer import TrialTrainer
from rankopt.training.trial import run_trial

Spec = Callable[..., TrialSpec]


@pytest.mark.parametrize("name", ALLOCATORS)
def test_the_exported_adapter_is_the_scored_model(
    name: str, tiny_spec: Spec, tmp_path: Path, by_peft: Callable[[Path], tuple[Any, Any]]
) -> None:
    """PEFT, loading the adapter on the plain model, gives the logits saved for the trial's own pattern."""
    spec = tiny_spec(allocator__name=name, training__steps=8, training__lr=2e-2)
    result = run_trial(spec, tmp_path)
    assert result.status == "complete", result.reason
    logits, plain = by_peft(tmp_path / "adapter")
    saved = np.load(tmp_path / "predictions.npz")["logits/budget/validation"]
    assert np.abs(logits - saved).max() < 1e-5
    if result.own.pattern.total:
        assert np.abs(plain - saved).max() > 1e-3, "the adapter must matter for this test to prove something"


def test_a_fine_tuned_head_in_another_label_order(tiny_spec: Spec, tiny_model: Path, tmp_path: Path) -> None:
    """Training, scores and the exported adapter agree with the names in the checkpoint's config."""
    import pandas as pd
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    order = {0: "POSITIVE", 1: "NEGATIVE"}
    base, folder = tmp_path / "base", tmp_path / "trial"
    names = {"id2label": order, "label2id": {name: index for index, name in order.items()}}
    AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2, **names).save_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(base)
    spec = tiny_spec(model__name=str(base), training__steps=80, training__lr=1e-2)
    result = run_trial(spec, folder)
    assert result.score("report") > 0.8
    # as a user does: the names are those of the checkpoint, and of the config beside the adapter
    rows = pd.read_parquet(Path(spec.task.data_dir) / "sst2" / "validation.parquet")
    inputs = tokenizer(rows["sentence"].tolist(), padding=True, return_tensors="pt")
    for config in (AutoConfig.from_pretrained(base), AutoConfig.from_pretrained(folder / "adapter")):
        assert config.id2label == order
        model = PeftModel.from_pretrained(
            AutoModelForSequenceClassification.from_pretrained(base, config=config), folder / "adapter"
        )
        with torch.no_grad():
            logits = model.eval()(**inputs).logits.numpy()
        answers = [config.id2label[index].lower() for index in logits.argmax(1)]
        expected = ["positive" if label else "negative" for label in rows["label"]]
        assert np.mean([a == b for a, b in zip(answers, expected, strict=True)]) == result.score("report")
    saved = np.load(folder / "predictions.npz")["logits/budget/validation"]
    assert np.abs(saved - logits[:, [1, 0]]).max() < 1e-5, "predictions are in the task's order"


def test_a_decoder_without_a_pad_token(tiny_spec: Spec, tiny_tokenizer: Any, tmp_path: Path) -> None:
    """The config beside the adapter has the pad token and the labels, so that a padded batch runs; a note says so."""
    from peft import PeftModel
    from tiny_models import tiny_config
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    base, folder = tmp_path / "base", tmp_path / "trial"
    AutoModel.from_config(tiny_config("gpt2", vocab_size=len(tiny_tokenizer))).save_pretrained(base)
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    tokenizer.save_pretrained(base)
    result = run_trial(tiny_spec(model__name=str(base), training__steps=4), folder)
    assert any("pad_token_id was not set" in note and "config.json" in note for note in result.notes)
    config = AutoConfig.from_pretrained(folder / "adapter")
    assert config.pad_token_id == 3
    assert config.id2label == {0: "negative", 1: "positive"}
    model = PeftModel.from_pretrained(
        AutoModelForSequenceClassification.from_pretrained(base, config=config), folder / "adapter"
    )
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 3]])
    assert model(input_ids=ids, attention_mask=torch.tensor([[1] * 4, [1, 1, 1, 0]])).logits.shape == (2, 2)


def test_what_came_before_a_restart_is_kept(
    tiny_spec: Spec, tmp_path: Path, by_peft: Callable[[Path], tuple[Any, Any]]
) -> None:
    """A super-network's own point is LoRA trained until its recovery, to rounding; its other points are cut from the
    adapter that recovered, as PEFT sees them too."""
    how: dict[str, Any] = {"budget": None, "model__scale": "unit", "model__dropout": 0.1, "training__lr": 2e-2}
    nested = {"name": "nested", "recovery": 5, "curve": [1.0], "looks": 3}
    result = run_trial(tiny_spec(allocator=nested, training__steps=14, **how), tmp_path / "nested")
    assert result.status == "complete", result.reason
    how["budget"] = {"mean_rank": 4}
    alone = run_trial(tiny_spec(allocator={"name": "uniform"}, training__steps=9, **how), tmp_path / "uniform")
    assert result.own.pattern == alone.own.pattern
    saved, expected = (np.load(tmp_path / name / "predictions.npz") for name in ("nested", "uniform"))
    assert np.abs(saved["logits/budget/validation"] - expected["logits/budget/validation"]).max() < 1e-4

    assert {point.adapter for point in result.points[1:]} == {"recovered"}
    cut = next(point for point in result.points if point.label == "uniform 1")
    for adapter, same in (("recovered", True), ("adapter", False)):
        cut_peft(tmp_path / "nested" / adapter, cut.pattern)
        logits, _ = by_peft(tmp_path / "nested" / adapter)
        far = float(np.abs(logits - saved["logits/uniform 1/validation"]).max())
        assert far < 1e-5 if same else far > 1e-3


def test_cost_counts_the_tokens_that_went_through(tiny_spec: Spec, tmp_path: Path, monkeypatch: Any) -> None:
    """Tokens in the result equal the tokens of all training batches, with accumulation and a remainder."""
    step = TrialTrainer.training_step
    seen = [0, 0]

    def watch(self: Any, model: Any, inputs: Any, *others: Any) -> Any:
        seen[0] += int(inputs["attention_mask"].sum())
        seen[1] += inputs["attention_mask"].numel()
        return step(self, model, inputs, *others)

    monkeypatch.setattr(TrialTrainer, "training_step", watch)
    result = run_trial(tiny_spec(training={"epochs": 2.0, "batch_size": 12, "accumulation": 3}), tmp_path)
    assert result.cost is not None
    assert [result.cost.tokens, result.cost.padded_tokens] == seen


def test_the_baseline_of_a_result(tiny_spec: Spec, tmp_path: Path) -> None:
    """The scores of the most frequent class on both splits, which are balanced here."""
    result = run_trial(tiny_spec(training__steps=1), tmp_path)
    assert result.baseline is not None
    assert result.baseline.name == "predicting the most frequent class"
    assert result.baseline.search["accuracy"] == 0.5
    assert result.baseline.report["validation"]["accuracy"] == 0.5
    assert result.baseline.report["validation"].keys() == result.own.report["validation"].keys()
