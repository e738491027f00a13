"""Second moments of the low-rank inputs of an adapter's modules over a few texts."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rankopt.adapters.adapter import Adapter, read_adapter
from rankopt.adapters.add_updates import add_updates
from rankopt.adapters.base_model import load_base, load_tokenizer
from rankopt.core.errors import first_line

TEXTS, TOKENS = 128, 512
"""Most texts that are read, and most tokens of each."""


def moments_of(adapter: str | Path | Adapter, model: str, data: Path) -> dict[str, Tensor]:
    """The moments of an adapter over a file of texts; base model and adapter run one text at a time, without padding.

    Args:
        adapter: a folder, a hub id, or an adapter that was already read.
        model: the base model's folder or hub id.
        data: a `.txt` file with one text per line, or a `.jsonl` file whose objects have a field `text` (otherwise
            their first string is used); the first 128 texts are read.
    Returns:
        Per module H `(r, r)`, see `moments`.
    Raises:
        ValueError: wrong texts, a model that does not fit the adapter, or a model that cannot run on text alone.
    """
    source = read_adapter(adapter)
    texts = list(islice(_texts(data), TEXTS))
    base = load_base(model, source)
    add_updates(source, base)
    try:
        tokenizer = load_tokenizer(model)
    except ValueError as error:
        raise ValueError(f"--model must have a tokenizer for --calibrate, got {model!r} ({error})") from None
    longest = max(texts, key=len)

    @torch.no_grad()
    def run(tokens: int) -> None:
        base(**tokenizer(longest, return_tensors="pt", truncation=True, max_length=tokens))

    most = longest_input(run)
    batches = (tokenizer(text, return_tensors="pt", truncation=True, max_length=most) for text in texts)
    return moments(source, base, batches)


def longest_input(run: Callable[[int], None]) -> int:
    """The largest number of tokens, at most 512, for which a model runs; models with few positions fail above it.

    Args:
        run: runs the model on a text of at most so many tokens.
    Raises:
        ValueError: the model fails at any length.
    """
    problem: Exception | None = None

    def fails(tokens: int) -> bool:
        nonlocal problem
        try:
            run(tokens)
        except Exception as error:  # an index error for a table of positions; other models raise other errors
            problem = error
            return True
        return False

    if not fails(TOKENS):
        return TOKENS
    most = bisect_left(range(1, TOKENS), True, key=fails)
    if not most and problem:
        raise ValueError(f"--calibrate needs a model that runs on text alone, this one fails ({first_line(problem)})")
    return most


@torch.no_grad()
def moments(source: Adapter, model: nn.Module, batches: Iterable[Mapping[str, Any]]) -> dict[str, Tensor]:
    """The second moment of the outputs of the factors A of an adapter.

        H = E[(A x)(A x)^T] = A C A^T,    C = E[x x^T] over all positions that are not padding

    C would be `(in, in)` per module; H is `(r, r)` and suffices for a weighted truncation.

    Args:
        source: the adapter.
        model: the base model with the adapter's updates added, so that inputs are those of the adapted model.
        batches: keyword arguments of the model; `attention_mask` is 0 at padding.
    Returns:
        Per module H `(r, r)` in float64.
    Raises:
        ValueError: a module is a convolution, or is not used by any batch.
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
                raise ValueError(f"--calibrate supports linear maps and embeddings, {name} is a convolution")
            A = source.factors(name, torch.float32).A
            handle = model.get_submodule(name).register_forward_pre_hook(watch(name, A, module.kind == "embedding"))
            hooks.callback(handle.remove)
        for batch in batches:
            mask[0] = batch.get("attention_mask")
            model(**batch)
    unused = [name for name, count in counts.items() if not count]
    if unused:
        raise ValueError(f"--calibrate needs texts that use every module, none uses {unused[0]}")
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
        raise ValueError(f"--calibrate must contain texts, {data} is empty")


def _field(data: Path, number: int, line: str) -> str:
    if not line.strip():
        return ""
    try:
        record = json.loads(line)
        texts = [value for value in record.values() if isinstance(value, str)]
        return str(record["text"]) if "text" in record else texts[0]
    except (ValueError, AttributeError, IndexError, RecursionError):
        raise ValueError(f"{data}:{number}: must be a JSON object with a text, got {line.strip()[:60]!r}") from None
