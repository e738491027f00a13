"""Truncation weighted by inputs: it is optimal in that norm, and the reported error is the error on outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rankopt
from rankopt.adapters.adapter import Factors, read_adapter
from rankopt.adapters.add_updates import add_updates
from rankopt.adapters.calibrate import longest_input, moments, moments_of
from rankopt.adapters.truncate import truncate, truncate_weighted


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_same_as_whitening(seed: int, rank: int) -> None:
    """The same result as by whitening with the root of C and a dense decomposition."""
    draw = torch.Generator().manual_seed(seed)
    A, B = (torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((5, 9), (7, 5)))
    x = torch.randn(40, 9, generator=draw, dtype=torch.float64) * torch.logspace(0, -1.5, 9, dtype=torch.float64)
    C = x.T @ x / len(x)
    L = torch.linalg.cholesky(C)
    U, S, Vh = torch.linalg.svd(B @ A @ L)
    expected = (U[:, :rank] * S[:rank]) @ Vh[:rank] @ torch.linalg.inv(L)
    cut, worth = truncate_weighted(Factors(A, B), A @ C @ A.T, rank)
    torch.testing.assert_close(cut.B @ cut.A, expected, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(worth, S[:5].square(), atol=1e-9, rtol=1e-9)
    lost = ((B @ A - cut.B @ cut.A) @ x.T).square().sum(0).mean()
    assert float(lost) == pytest.approx(float(worth[rank:].sum()), abs=1e-9)
    plain = truncate(Factors(A, B), rank)
    assert float(lost) <= float(((B @ A - plain.B @ plain.A) @ x.T).square().sum(0).mean()) + 1e-9


@pytest.mark.parametrize("case", ["plain", "fan_in_fan_out", "embeddings", "rsLoRA"])
def test_smaller_error_on_the_calibration_inputs(
    case: str, adapter_of: Callable[..., Path], tmp_path: Path, stock: Any
) -> None:
    """At equal parameters, weighted truncation changes the modules' outputs less than plain truncation, and by the
    reported error; padding is ignored."""
    source = read_adapter(adapter_of(case))
    base = stock.build(stock.cases[case][0])
    add_updates(source, base)
    ids = torch.randint(2, 50, (6, 12), generator=torch.Generator().manual_seed(3))
    seen = moments(source, base, [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}])
    weighted = rankopt.compress(source, tmp_path / "w", rank=2, moments=seen)
    rankopt.compress(source, tmp_path / "p", rank=2)

    def lost(folder: Path) -> float:
        other, total, whole = read_adapter(folder), 0.0, 0.0
        for name, module in source.modules.items():
            H, (A, B) = seen[name], source.factors(name)
            cut = other.factors(name)
            # A' = M A for both cuts, so that their outputs are B' M (A x)
            M = torch.linalg.lstsq(A.T, cut.A.T).solution.T
            D = module.scale * B - other.modules[name].scale * cut.B @ M
            total += float(torch.trace(D @ H @ D.T))
            whole += float(module.scale**2 * torch.trace(B @ H @ B.T))
        return (total / whole) ** 0.5

    assert weighted.weighted_error == pytest.approx(lost(tmp_path / "w"), rel=1e-3)
    assert lost(tmp_path / "w") < lost(tmp_path / "p")
    padded = torch.cat([ids, torch.full((6, 5), 1)], 1)
    mask = (torch.arange(17) < 12).long().expand(6, 17)
    if case != "embeddings":
        again = moments(source, base, [{"input_ids": padded, "attention_mask": mask}])
        for name, H in seen.items():
            torch.testing.assert_close(again[name], H, atol=1e-4, rtol=1e-3)


def test_from_files(tmp_path: Path, tiny_model: Path) -> None:
    """A base model with its tokenizer and a file of texts suffice."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    model = get_peft_model(AutoModel.from_pretrained(tiny_model), LoraConfig(r=3, target_modules=["query"]))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.3)
    model.save_pretrained(str(tmp_path / "a"))
    texts = ["bright film", "", "dull road window", "warm letter"]
    (tmp_path / "t.txt").write_text("\n".join(texts))
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts if text))
    found = [moments_of(tmp_path / "a", str(tiny_model), tmp_path / name) for name in ("t.txt", "t.jsonl")]
    assert len(found[0]) == 2
    for name, H in found[0].items():
        assert H.shape == (3, 3)
        assert torch.equal(H, found[1][name])
        assert float(torch.linalg.eigvalsh(H)[0]) > -1e-9


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "x", "must be a .txt or .jsonl file"),
        ("a.txt", "\n \n", "must contain texts"),
        ("a.jsonl", "{", "a.jsonl:1: must be a JSON object with a text"),
        ("a.jsonl", '{"n": 1}', "must be a JSON object with a text"),
        ("missing.txt", None, "must be a readable UTF-8 file"),
    ],
)
def test_wrong_texts_are_refused(
    name: str, text: str | None, message: str, adapter_of: Callable[..., Path], tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        moments_of(adapter_of("plain"), "nowhere", tmp_path / name)


def test_a_missing_model_is_refused(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a\n")
    with pytest.raises(ValueError, match="--model must be a model's folder or hub id, got"):
        moments_of(adapter_of("plain"), str(tmp_path / "none"), tmp_path / "t.txt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["bert", "gpt2", "roberta"])
def test_models_with_few_positions(family: str, tmp_path: Path, tiny_tokenizer: Any) -> None:
    """Long texts are truncated to the model's positions, whatever its tokenizer says."""
    from peft import LoraConfig, get_peft_model
    from tiny_models import tiny_config
    from transformers import AutoModel

    base = AutoModel.from_config(tiny_config(family, vocab_size=len(tiny_tokenizer), pad_token_id=0))
    base.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    target = "c_attn" if family == "gpt2" else "query"
    get_peft_model(base, LoraConfig(r=3, target_modules=[target])).save_pretrained(str(tmp_path / "a"))
    (tmp_path / "t.txt").write_text("bright film " * 300 + "\ndull road\n")
    found = moments_of(tmp_path / "a", str(tmp_path / "base"), tmp_path / "t.txt")
    assert all(H.isfinite().all() for H in found.values())


@pytest.mark.parametrize("limit", [1, 2, 37, 511, 512, 1000])
def test_longest_input(limit: int) -> None:
    """The largest length at which the model runs, found in a few runs."""
    runs = []

    def run(tokens: int) -> None:
        runs.append(tokens)
        if tokens > limit:
            raise IndexError("index out of range in self")

    assert longest_input(run) == min(limit, 512)
    assert len(runs) <= 11


def test_a_model_that_needs_more_than_text() -> None:
    def run(tokens: int) -> None:
        raise ValueError("You have to specify pixel_values\nor else")

    with pytest.raises(ValueError, match=r"runs on text alone, this one fails \(You have to specify pixel_values\)$"):
        longest_input(run)
