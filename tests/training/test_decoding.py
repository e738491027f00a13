"""Decoding in batches with merged adapters gives the texts of `generate`, one prompt at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_language_model

from rankopt.core.trial_spec import ModelSpec
from rankopt.tasks import TASKS
from rankopt.tasks.completions import prompts_of
from rankopt.tasks.mini_decoder import build_tokenizer
from rankopt.tasks.problems import Generation
from rankopt.training.decoding import decode, merged
from rankopt.training.evaluate import predict
from rankopt.training.model import Adapted, load_adapted

TASK = TASKS["mini-e2e"]


@pytest.fixture(params=["llama", "gpt2", "opt", "bloom", "t5", "bart"])
def adapted(request: pytest.FixtureRequest, tmp_path: Path) -> Adapted:
    """A random model whose adapters act."""
    tokenizer = build_tokenizer()
    tiny_language_model(request.param, vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = load_adapted(ModelSpec(name=str(tmp_path), max_rank=2, alpha=1.0), "unit", TASK, 0)
    generator = torch.Generator().manual_seed(0)
    for layer in found.layers.values():
        layer.replace(
            torch.randn(2, layer.shape.fan_in, generator=generator),
            0.3 * torch.randn(layer.shape.fan_out, 2, generator=generator),
        )
        layer.open(2)
    return found


def data_of(adapted: Adapted, prompts: int) -> Any:
    """Prompts of several lengths, each twice."""
    rows = TASK.read("validation", None).select(range(2 * prompts))
    cut = rows.map(
        lambda row, index: {"prompt": " ".join(row["prompt"].split()[: 1 + index // 2 % 6])}, with_indices=True
    )
    return TASK.tokenise(cut, adapted.tokenizer, 64)


@pytest.mark.parametrize("beams", [1, 2])
def test_batches_equal_single_prompts(adapted: Adapted, beams: int) -> None:
    problem = Generation(max_new_tokens=6, beams=beams)
    data = data_of(adapted, 24 if beams == 1 else 6)
    found = decode(adapted, problem, data, 7, "fp32")
    prompts, numbers = prompts_of(data)
    assert found["prompt"].tolist() == numbers.tolist()
    net: Any = adapted.net
    for index, text in enumerate(found["text"]):
        ids = torch.from_numpy(prompts[numbers[index]])[None].long()
        with torch.no_grad():
            own = net.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, num_beams=beams, do_sample=False
            )[0]
        own = own if net.config.is_encoder_decoder else own[ids.shape[1] :]
        assert adapted.tokenizer.decode(own, skip_special_tokens=True).strip() == text
    assert len(set(found["text"])) > 1, "the test could not fail"


@pytest.mark.slow
def test_a_hundred_prompts_of_a_trained_decoder() -> None:
    """The embedded decoder with random adapters: every text equals that of `generate` alone."""
    found = load_adapted(ModelSpec(name="mini-decoder", max_rank=2, alpha=1.0), "unit", TASK, 0)
    torch.manual_seed(0)
    for layer in found.layers.values():
        layer.replace(0.1 * torch.randn(2, layer.shape.fan_in), 0.1 * torch.randn(layer.shape.fan_out, 2))
        layer.open(2)
    rows = TASK.read("validation", None)
    first = {prompt: index for index, prompt in reversed(list(enumerate(rows["prompt"])))}
    data = TASK.tokenise(rows.select(sorted(first.values())[:100]), found.tokenizer, 64)
    texts, (prompts, _) = decode(found, Generation(max_new_tokens=16), data, 16, "fp32")["text"], prompts_of(data)
    assert len(prompts) == 100
    net: Any = found.net
    for prompt, text in zip(prompts, texts, strict=True):
        ids = torch.from_numpy(prompt)[None].long()
        with torch.no_grad():
            own = net.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
        assert found.tokenizer.decode(own[0, ids.shape[1] :], skip_special_tokens=True).strip() == text
    assert len(set(texts)) > 50, "the test could not fail"


def test_merging_is_undone_and_the_forward_pass_restored(adapted: Adapted) -> None:
    net: Any = adapted.net
    weights = [layer.base.weight for layer in adapted.layers.values()]
    net.forward = replaced = lambda **inputs: None
    with merged(adapted, torch.bfloat16):
        assert "forward" not in vars(net)
        assert all(layer.base.weight.dtype == torch.bfloat16 for layer in adapted.layers.values())
    assert net.forward is replaced
    assert all(one is layer.base.weight for one, layer in zip(weights, adapted.layers.values(), strict=True))


def test_texts_are_decoded_only_for_metrics_that_read_them(adapted: Adapted) -> None:
    data = data_of(adapted, 2)
    assert "text" not in predict(adapted, TASK, data, 4, "fp32", metrics=["perplexity"])
    answers = predict(adapted, TASK, data, 4, "fp32")
    assert set(TASK.scores(answers, data.labels)) == set(TASK.metrics)
