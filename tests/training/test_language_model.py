"""Decoders and encoder-decoders of many families train, are exported, and load in PEFT with the same logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from tiny_models import tiny_language_model
from trial_results import without_seconds

from rankopt.core.progress import Control
from rankopt.core.spec import decode
from rankopt.core.trial_spec import AllocatorSpec, ModelSpec, TrialSpec
from rankopt.tasks import TASKS
from rankopt.tasks.mini_decoder import build_tokenizer
from rankopt.training.data import load_data
from rankopt.training.evaluate import predict
from rankopt.training.language_model import sees_later_tokens
from rankopt.training.model import load_adapted
from rankopt.training.train import InterruptedTrialError
from rankopt.training.trial import run_trial

DECODERS = ["gpt2", "llama", "qwen2", "qwen3", "gemma", "gemma2", "phi", "mistral", "opt", "gpt_neox", "bloom"]
ENCODER_DECODERS = ["t5", "bart", "mbart"]


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Saves a random language model of a family with the embedded decoder's tokenizer."""

    def save(family: str, **changes: Any) -> Path:
        tokenizer = build_tokenizer()
        folder = tmp_path / family
        tiny_language_model(family, vocab_size=len(tokenizer), **changes).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


def trial(folder: Path, task: str = "mini-text", **training: Any) -> TrialSpec:
    return decode(
        TrialSpec,
        {
            "task": {"name": task, "train_examples": 32, "search_examples": 8, "report_examples": 8},
            "model": {"name": str(folder), "max_rank": 2, "alpha": 8.0},
            "allocator": {"name": "uniform"},
            "budget": {"mean_rank": 2},
            "training": {"steps": 2, "batch_size": 4, "lr": 0.05, **training},
        },
    )


def test_a_head_that_a_language_model_lacks_is_the_untouched_model(tmp_path: Path) -> None:
    """No step is made, nothing is stored beside the model, and the scores are those before any training."""
    spec = trial(Path("mini-decoder")).model_copy(update={"allocator": None, "budget": None})
    spec = decode(TrialSpec, spec.plain | {"tuner": {"name": "head"}})
    result = run_trial(spec, tmp_path / "trial")
    assert result.status == "complete"
    assert (result.cost.steps, result.cost.tokens, result.own.kept) == (0, 0, 0)  # type: ignore[union-attr]
    adapted = load_adapted(ModelSpec(name="mini-decoder", max_rank=2), "unit", TASKS["mini-text"], 0)
    data = load_data(spec.task, adapted.tokenizer).held_out["search"]
    answers = predict(adapted, TASKS["mini-text"], data, 32, "fp32")
    assert result.own.search == pytest.approx(TASKS["mini-text"].scores(answers, data.labels), rel=1e-5)


@pytest.mark.parametrize("family", [*DECODERS, *ENCODER_DECODERS])
def test_an_exported_adapter_has_pefts_logits(family: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    """Trained for two steps, exported with the family's task type, and read by PEFT's own loader."""
    folder = saved(family)
    result = run_trial(trial(folder), tmp_path / "trial")
    assert result.status == "complete", result.reason
    task = TASKS["mini-text"]
    adapted = load_adapted(ModelSpec(name=str(folder), max_rank=2, alpha=8.0), "init", task, 0)
    from rankopt.lowrank.export import import_peft

    base = tiny_language_model(family, vocab_size=len(adapted.tokenizer))
    ours = tiny_language_model(family, vocab_size=len(adapted.tokenizer))
    import_peft(ours, tmp_path / "trial" / "adapter")
    exported = json.loads((tmp_path / "trial" / "adapter" / "adapter_config.json").read_text())
    assert exported["task_type"] == ("SEQ_2_SEQ_LM" if family in ENCODER_DECODERS else "CAUSAL_LM")
    assert exported["modules_to_save"] is None
    data = task.tokenise(task.read("validation", None).select(range(4)), adapted.tokenizer, 32)
    batch = task.problem.collate([data[index] for index in range(4)], adapted.tokenizer, base.config)
    del batch["labels"]
    with torch.no_grad():
        start = base(**batch).logits
        expected = ours.eval()(**batch).logits
        found = PeftModel.from_pretrained(base, str(tmp_path / "trial" / "adapter")).eval()(**batch).logits
    assert (expected - start).abs().max() > 1e-3, "the test could not fail"
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_all_linear_leaves_out_the_map_to_the_vocabulary(family: str, saved: Callable[..., Path]) -> None:
    adapted = load_adapted(ModelSpec(name=str(saved(family)), max_rank=2), "init", TASKS["mini-text"], 0)
    assert adapted.head == ()
    assert adapted.head_parameters == 0
    assert len(adapted.layers) == {"gpt2": 8, "llama": 14, "t5": 2 * 6 + 2 * 10}[family]
    assert not any("lm_head" in name for name in adapted.layers)


def test_models_that_are_no_language_models_are_refused(checkpoint: Callable[..., Path]) -> None:
    """An encoder sees later tokens; a checkpoint without a map to the vocabulary cannot predict."""
    from tiny_models import tiny_config
    from transformers import BertForMaskedLM, LlamaForSequenceClassification

    encoder = BertForMaskedLM(tiny_config("bert", initializer_range=0.3))
    assert sees_later_tokens(encoder.eval())
    spec = ModelSpec(name=str(checkpoint("bert", encoder)), max_rank=2)
    with pytest.raises(ValueError, match="must be a decoder or an encoder-decoder for language modelling"):
        load_adapted(spec, "init", TASKS["mini-text"], 0)
    classifier = LlamaForSequenceClassification(tiny_config("llama", pad_token_id=0))
    spec = ModelSpec(name=str(checkpoint("llama", classifier)), max_rank=2)
    with pytest.raises(ValueError, match=r"it is not a language model: its weights lack lm_head\.weight"):
        load_adapted(spec, "init", TASKS["mini-text"], 0)


def test_accumulated_batches_count_tokens(saved: Callable[..., Path], tmp_path: Path) -> None:
    """Two micro-batches of two examples give the loss of one batch of four, whatever their lengths."""
    folder = saved("llama")
    losses = [
        run_trial(
            trial(folder, steps=3, batch_size=size, accumulation=4 // size, group_by_length=False), tmp_path / str(size)
        ).losses
        for size in (4, 2)
    ]
    for one, other in zip(*losses, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)


@pytest.mark.parametrize("allocator", [{"name": "adalora"}, {"name": "nested", "sandwich": 1, "distill": True}])
def test_an_interrupted_trial_continues_with_the_same_bits(
    allocator: dict[str, Any], saved: Callable[..., Path], tmp_path: Path
) -> None:
    """Also with further passes that are taught by the first one."""
    folder = saved("llama")
    spec = trial(folder, "mini-e2e", steps=6, batch_size=4)
    spec = spec.model_copy(update={"allocator": AllocatorSpec(**allocator)})
    whole = run_trial(spec, tmp_path / "whole")
    steps: list[int] = []
    with pytest.raises(InterruptedTrialError):
        run_trial(spec, tmp_path / "cut", Control(lambda seen: steps.append(seen.step), stop=lambda: len(steps) >= 3))
    again = run_trial(spec, tmp_path / "cut")
    assert whole.status == "complete", whole.reason
    assert without_seconds(again) == without_seconds(whole)
    ours, theirs = (dict(np.load(tmp_path / name / "predictions.npz")) for name in ("cut", "whole"))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
