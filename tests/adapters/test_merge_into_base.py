"""Merged base models compute what PEFT computes with the adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rankopt.adapters.merge_into_base import merge_into_base


def test_same_logits_as_the_adapter(case: str, tmp_path: Path, stock: Any) -> None:
    """transformers loads the merged model, and its logits are those of PEFT's adapter, also for DoRA and biases."""
    family, model = stock.make(case, tmp_path / "a")
    stock.build(family).save_pretrained(tmp_path / "base")
    expected = stock.logits(model)
    done = merge_into_base(tmp_path / "a", str(tmp_path / "base"), tmp_path / "merged")
    assert done.relative_error < 1e-6
    kind = AutoModelForCausalLM if family == "llama" else AutoModelForSequenceClassification
    merged = kind.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(stock.logits(merged), expected, atol=1e-5, rtol=1e-5)


TIED: dict[str, dict[str, Any]] = {
    "the output map is trained": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "the embedding is trained": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "both are trained": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "both are trained as one": {
        "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True,
    },
    "the embedding is adapted": {"target_modules": ["embed_tokens", "q_proj"]},
    "the output map is adapted": {"target_modules": ["lm_head", "q_proj"]},
    "neither": {"target_modules": ["q_proj"]},
}  # fmt: skip


def tied_adapter(options: dict[str, Any], tmp_path: Path, stock: Any, embeddings: bool = False) -> Any:
    """An adapter in `tmp_path / "a"` for a Llama with tied embeddings in `tmp_path / "base"`; returns PEFT's model."""
    from peft import LoraConfig, get_peft_model
    from tiny_models import tiny_config

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(
        tiny_config("llama", vocab_size=50, num_hidden_layers=1, tie_word_embeddings=True, initializer_range=0.3)
    )
    base.save_pretrained(tmp_path / "base")
    model = get_peft_model(base, LoraConfig(r=2, task_type="CAUSAL_LM", **options)).eval()
    stock.randomise(model, 3)
    model.save_pretrained(str(tmp_path / "a"), save_embedding_layers=embeddings)
    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    return PeftModel.from_pretrained(fresh, str(tmp_path / "a")).eval()


@pytest.mark.filterwarnings("ignore")  # PEFT warns about tied weights
@pytest.mark.parametrize("case", TIED)
@pytest.mark.parametrize("embeddings", [False, True], ids=["", "with saved embeddings"])
def test_tied_embeddings(embeddings: bool, case: str, tmp_path: Path, stock: Any) -> None:
    """A base model with tied embeddings: the merged model's logits are those of PEFT's adapter."""
    expected = stock.logits(tied_adapter(TIED[case], tmp_path, stock, embeddings))
    done = merge_into_base(tmp_path / "a", str(tmp_path / "base"), tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(stock.logits(merged), expected, atol=1e-5, rtol=1e-5)
    untied = case not in ("neither", "both are trained as one")
    assert merged.config.tie_word_embeddings is not untied
    assert any("untied" in note for note in done.notes) == untied


@pytest.mark.filterwarnings("ignore")
def test_the_check_notices_a_shared_weight(tmp_path: Path, stock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without untying, the check fails: it does not repeat the copy into a shared weight."""
    tied_adapter(TIED["both are trained"], tmp_path, stock)
    monkeypatch.setattr("rankopt.adapters.add_updates._untie", lambda *_: False)
    with pytest.raises(OSError, match="of the merged model differs from the intended value"):
        merge_into_base(tmp_path / "a", str(tmp_path / "base"), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_different_model_is_refused(adapter_of: Callable[..., Path], tmp_path: Path, stock: Any) -> None:
    stock.build("gpt2").save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match=r"the adapter has a tensor .*, this model lacks it"):
        merge_into_base(adapter_of("plain"), str(tmp_path / "base"), tmp_path / "merged")


def test_a_full_disk_at_the_tokenizer(
    adapter_of: Callable[..., Path], tmp_path: Path, stock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error, not a missing tokenizer, and nothing is left behind."""

    class Tokenizer:
        def save_pretrained(self, folder: Path) -> None:
            raise OSError(28, "No space left on device")

    stock.build("llama").save_pretrained(tmp_path / "base")
    monkeypatch.setattr("rankopt.adapters.merge_into_base.load_tokenizer", lambda _: Tokenizer())
    with pytest.raises(OSError, match="No space left"):
        merge_into_base(adapter_of("all of Llama"), str(tmp_path / "base"), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    assert not [*tmp_path.glob(".*")]


def test_a_classifier_gets_a_padding_token(tmp_path: Path, tiny_tokenizer: Any) -> None:
    """A decoder without `pad_token_id`: the merged classifier runs batches, like the README's two lines."""
    from peft import LoraConfig, get_peft_model
    from tiny_models import tiny_config
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    config = tiny_config("llama", vocab_size=len(tiny_tokenizer), num_labels=3, num_key_value_heads=2)
    assert config.pad_token_id is None
    base = AutoModelForSequenceClassification.from_config(config)
    base.save_pretrained(tmp_path / "base")
    core = Tokenizer.from_str(tiny_tokenizer.backend_tokenizer.to_str())
    core.no_padding()  # another test may have padded with it, which it remembers
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="[SEP]").save_pretrained(tmp_path / "base")
    get_peft_model(base, LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"])).save_pretrained(
        str(tmp_path / "a")
    )
    done = merge_into_base(tmp_path / "a", str(tmp_path / "base"), tmp_path / "merged")
    assert "pad_token_id was not set; the merged model pads with '[SEP]'" in done.notes
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert merged.config.pad_token_id == tokenizer.pad_token_id == tokenizer.eos_token_id
    batch = tokenizer(["bright film", "dull road window song"], padding=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    assert merged(**batch).logits.shape == (2, 3)
