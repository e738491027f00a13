"""What the bench of a language model runs on: rows of E2E, a small decoder with random weights, and its tokenizer."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

ROWS, SCORED = 480, 160
PROMPT = "{mr}\n"
SIZES = {
    "hidden_size": 256, "num_hidden_layers": 16, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 683, "max_position_embeddings": 512, "vocab_size": 16_384, "tie_word_embeddings": True,
}  # fmt: skip
"""A sixteenth of SmolLM2-135M in its proportions: the map to the vocabulary is a quarter of the weights."""


def text_task(data: str, folder: Path) -> dict[str, Any]:
    """Write the rows to train and score on; returns them as a study's task.

    Args:
        data: folder with E2E's train.csv and test.csv, whose columns are `mr` and `ref`.
        folder: gets train.csv and report.csv.
    """
    for new, old, count in (("train", "train", ROWS), ("report", "test", SCORED)):
        with Path(data, f"{old}.csv").open(encoding="utf-8") as source:
            every = list(csv.DictReader(source))
        chosen = every[:: max(1, len(every) // count)][:count]
        with (folder / f"{new}.csv").open("w", encoding="utf-8", newline="") as target:
            writer = csv.DictWriter(target, ["mr", "ref"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(chosen)
    files = {split: str(folder / f"{split}.csv") for split in ("train", "report")}
    return {
        "name": "e2e", "problem": "language-modelling", "data": files, "prompt": PROMPT, "completion": "ref",
        "metrics": ["perplexity"], "protocol": "paper", "max_length": 256,
    }  # fmt: skip


def small_decoder(rows: Path, folder: Path) -> str:
    """Save the decoder and a byte-pair tokenizer trained on a file's rows; returns their folder."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    core = ByteLevelBPETokenizer()
    core.train([str(rows)], vocab_size=2000, special_tokens=["<end>"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core._tokenizer, eos_token="<end>", pad_token="<end>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)
