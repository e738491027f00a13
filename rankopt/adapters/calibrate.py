"""What reaches an adapter's modules: second moments of their low-rank inputs over a few texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rankopt.adapters.adapter import Adapter, read_adapter
from rankopt.adapters.base_model import add_updates, load_base
from rankopt.core.problems import first_line

TEXTS, TOKENS = 128, 512
"""Texts read at most, and tokens of each."""


def moments_of(adapter: str | Path | Adapter, model: str, data: Path) -> dict[str, Tensor]:
    """The moments of an adapter over a file of texts, run one at a time (so nothing is padded) by base and adapter.

    Args:
        adapter: a folder, a hub id, or an adapter that was read.
        model: the base model's folder or hub id.
        data: `.txt`, one text per line, or `.jsonl` with a field `text` (else its first text); the first 128 are used.
    Returns:
        Per module H `(r, r)`, see `moments`.
    """
    from transformers import AutoTokenizer

    source = read_adapter(adapter)
    texts = list(islice(_texts(data), TEXTS))
    base = load_base(model, source)
    add_updates(source, base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--model must come with its tokenizer to --calibrate, got {model!r} ({first_line(error)})"
        ) from None
    batches = (tokenizer(text, return_tensors="pt", truncation=True, max_length=TOKENS) for text in texts)
    return moments(source, base, batches)


@torch.no_grad()
def moments(source: Adapter, model: nn.Module, batches: Iterable[Mapping[str, Any]]) -> dict[str, Tensor]:
    """The second moment of what the factors A of an adapter see.

        H = E[(A x)(A x)^T] = A C A^T,    C = E[x x^T] over all positions that are not padding

    C would be `(in, in)` per module; H is `(r, r)` and all that a weighted truncation needs.

    Args:
        source: the adapter.
        model: the base model with the adapter's updates added, so that inputs are those of the adapted model.
        batches: keyword arguments of the model; `attention_mask` marks padding by 0.
    Returns:
        Per module H `(r, r)` in float64.
    Raises:
        ValueError: a convolution, or a module that no batch reaches.
    """
    sums = {name: torch.zeros(module.rank, module.rank, dtype=torch.float64) for name, module in source.modules.items()}
    counts = dict.fromkeys(sums, 0)
    mask: list[Tensor | None] = [None]

    def watch(name: str, A: Tensor, lookup: bool) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0]
            kept = mask[0]
            positions = x if lookup else x.flatten(0, -2)
            if kept is not None and kept.shape == x.shape[: kept.ndim]:
                positions = x[kept.bool()]
            seen = A[:, positions.flatten()].T if lookup else positions.to(A.dtype) @ A.T
            sums[name] += (seen.T @ seen).double()
            counts[name] += len(seen)

        return hook

    with ExitStack() as hooks:
        for name, module in source.modules.items():
            if module.kind == "conv":
                raise ValueError(f"--calibrate knows linear maps and embeddings, {name} is a convolution")
            A = source.factors(name, torch.float32).A
            handle = model.get_submodule(name).register_forward_pre_hook(watch(name, A, module.kind == "embedding"))
            hooks.callback(handle.remove)
        for batch in batches:
            mask[0] = batch.get("attention_mask")
            model(**batch)
    silent = [name for name, count in counts.items() if not count]
    if silent:
        raise ValueError(f"--calibrate must reach every module, the texts never reach {silent[0]}")
    return {name: total / counts[name] for name, total in sums.items()}


def _texts(data: Path) -> Iterator[str]:
    if data.suffix not in (".txt", ".jsonl"):
        raise ValueError(f"--calibrate must be a .txt or .jsonl file, got {data}")
    found = False
    try:
        with data.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                text = line.strip() if data.suffix == ".txt" else _field(data, number, line)
                if text:
                    found = True
                    yield text
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError) as error:
        raise ValueError(f"--calibrate must be a readable UTF-8 file, got {data} ({type(error).__name__})") from None
    if not found:
        raise ValueError(f"--calibrate must hold texts, {data} is empty")


def _field(data: Path, number: int, line: str) -> str:
    if not line.strip():
        return ""
    try:
        record = json.loads(line)
        texts = [value for value in record.values() if isinstance(value, str)]
        return str(record["text"]) if "text" in record else texts[0]
    except (ValueError, AttributeError, IndexError):
        raise ValueError(f"{data}:{number}: must be a JSON object with a text, got {line.strip()[:60]!r}") from None
