"""Trainers that are built on transformers' Trainer take the callback as it is."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from own_training import arguments, decoder
from tiny_models import NO_DROPOUT, tiny_config

from rankopt.api.adapt import adapt

SHORT = {"warmup": 0.1, "final": 0.3}


@pytest.mark.parametrize(("allocator", "options"), [("adalora", SHORT), ("gora", {"batches": 2})])
def test_sft_trainer(allocator: str, options: dict[str, Any], tiny_tokenizer: Any, tmp_path: Path) -> None:
    """TRL's SFTTrainer on a tiny decoder: the budget is met, and PEFT loads the adapter."""
    trl = pytest.importorskip("trl", reason="TRL is not installed: pip install 'rankopt[trainers]'")
    from datasets import Dataset

    torch.manual_seed(0)
    model: Any = decoder()
    tiny_tokenizer.eos_token = tiny_tokenizer.eos_token or "[SEP]"
    adapted = adapt(model, allocator, mean_rank=2, max_rank=4, **options)
    fields = arguments(tmp_path, steps=8).to_dict()
    kept = {key: fields[key] for key in ("output_dir", "max_steps", "learning_rate", "use_cpu", "report_to")}
    args = trl.SFTConfig(
        **kept, per_device_train_batch_size=8, save_strategy="no", logging_strategy="no", disable_tqdm=True,
        max_length=16, bf16=False,
    )  # fmt: skip
    rows = Dataset.from_list(
        [{"text": f"lovely film {word} road bright"} for word in ("sour", "flat", "warm", "cold") * 8]
    )
    trainer = trl.SFTTrainer(
        model=model, args=args, train_dataset=rows, processing_class=tiny_tokenizer, callbacks=[adapted.callback()]
    )
    trainer.train()
    assert adapted.training.done == 8
    assert adapted.save(tmp_path / "adapter") == adapted.pattern
    assert adapted.pattern.total == 16
    from peft import PeftModel

    loaded = PeftModel.from_pretrained(decoder(), str(tmp_path / "adapter")).eval()
    ids = torch.arange(4, 12).reshape(1, 8)
    with torch.no_grad():
        assert torch.allclose(loaded(input_ids=ids).logits, model.eval()(input_ids=ids).logits, atol=1e-5)


def test_sentence_transformer_trainer(tiny_tokenizer: Any, tmp_path: Path) -> None:
    """The transformer inside a SentenceTransformer is adapted; its Trainer calls the model several times per step, and
    the loss is no output of the model. The penalty counts once all the same."""
    st = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed: pip install 'rankopt[trainers]'"
    )
    from datasets import Dataset
    from transformers import BertModel

    torch.manual_seed(0)
    folder = tmp_path / "model"
    config = tiny_config(vocab_size=len(tiny_tokenizer), initializer_range=0.2, **NO_DROPOUT)
    BertModel(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    modules = importlib.import_module("sentence_transformers.sentence_transformer.modules")
    word = modules.Transformer(str(folder), max_seq_length=16)
    model = st.SentenceTransformer(modules=[word, modules.Pooling(16)], device="cpu")
    inner: Any = model[0].auto_model
    adapted = adapt(inner, mean_rank=2, max_rank=4, **SHORT)
    rows = Dataset.from_list(
        [{"anchor": f"lovely {word}", "positive": f"{word} bright"} for word in ("film", "road", "song", "coat") * 8]
    )
    args = st.SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=8, per_device_train_batch_size=8, learning_rate=5e-3, use_cpu=True,
        report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    losses = importlib.import_module("sentence_transformers.sentence_transformer.losses")
    loss = losses.MultipleNegativesRankingLoss(model)
    trainer = st.SentenceTransformerTrainer(
        model=model, args=args, train_dataset=rows, loss=loss, callbacks=[adapted.callback()]
    )
    trainer.train()
    assert adapted.training.done == 8
    assert adapted.save(tmp_path / "adapter").total == 24
    from peft import PeftModel

    loaded = PeftModel.from_pretrained(BertModel.from_pretrained(folder), str(tmp_path / "adapter")).eval()
    ids = {"input_ids": torch.arange(4, 12).reshape(1, 8)}
    with torch.no_grad():
        ours, theirs = inner.eval()(**ids), loaded(**ids)
    assert torch.allclose(ours.last_hidden_state, theirs.last_hidden_state, atol=1e-5)
