"""Tokenise texts once into flat arrays, and pad each batch to its longest example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from rankopt.tasks.base import Task

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

CHUNK = 8192  # examples per tokenizer call: large enough to be fast, small enough for short token lists in memory


@dataclass(frozen=True, eq=False)
class Encoded:
    """Tokenised examples as a map-style torch dataset; example i is `ids[offsets[i] : offsets[i + 1]]`.

    Flat arrays instead of Python objects per token keep memory low: the 364,000 pairs of QQP need about 50 MB.

    Attributes:
        ids: (tokens,) int32, the concatenated token ids of all examples.
        types: (tokens,) int8 segment ids, or None if the tokenizer has none.
        offsets: (n + 1,) int64.
        labels: (n,) int64 classes, or float32 for a regression.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.int8] | None
    offsets: NDArray[np.int64]
    labels: NDArray[Any]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) token counts."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One unpadded example: `input_ids`, `attention_mask`, `labels`, and `token_type_ids` if there are any."""
        index = range(len(self))[index]  # handles negative and out-of-range indices like a list
        part = slice(self.offsets[index], self.offsets[index + 1])
        item: dict[str, Any] = {"input_ids": self.ids[part]}
        if self.types is not None:
            item["token_type_ids"] = self.types[part]
        return item | {"attention_mask": np.ones(len(item["input_ids"]), np.int8), "labels": self.labels[index].item()}


def encode(task: Task, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """Tokenise a split without padding; two text columns form a pair.

    Args:
        task: names the text columns.
        dataset: rows that `task.read` returned.
        tokenizer: a fast tokenizer.
        max_length: longest example in tokens, including special tokens; the longer text of a pair is truncated first.
    Returns:
        The examples, in the dataset's order.
    Raises:
        ValueError: `max_length` leaves no room for text.

    Example:
        >>> from datasets import Dataset
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> from rankopt.tasks.glue import GLUE
        >>> words = Tokenizer(models.WordLevel({"?": 0, "good": 1, "film": 2}, unk_token="?"))
        >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?", pad_token="?")
        >>> rows = Dataset.from_dict({"sentence": ["good film", "film"], "label": [1, 0]})
        >>> encoded = encode(GLUE["sst2"], rows, tokenizer, max_length=8)
        >>> encoded.lengths.tolist(), encoded[0]["input_ids"].tolist(), encoded[0]["labels"]
        ([2, 1], [1, 2], 1)
        >>> collate([encoded[0], encoded[1]], tokenizer)["input_ids"].tolist()
        [[1, 2], [2, 0]]
    """
    least = tokenizer.num_special_tokens_to_add(pair=len(task.columns) == 2) + len(task.columns)
    if max_length < least:
        raise ValueError(
            f"task.max_length must be at least {least} for {task.name} with this tokenizer, got {max_length}"
        )
    ids: list[NDArray[np.int32]] = []
    types: list[NDArray[np.int8]] = []
    lengths: list[int] = []
    table = dataset.with_format("arrow")[:]  # whole columns: ten times faster than row by row
    for start in range(0, len(dataset), CHUNK):
        tokens = tokenizer(
            *(table[column].slice(start, CHUNK).to_pylist() for column in task.columns),
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
        )
        lengths.extend(map(len, tokens["input_ids"]))
        ids.append(_flat(tokens["input_ids"], np.int32))
        if "token_type_ids" in tokens:
            types.append(_flat(tokens["token_type_ids"], np.int8))
    return Encoded(
        ids=np.concatenate(ids) if ids else np.empty(0, np.int32),
        types=np.concatenate(types) if types else None,
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        labels=table["label"].to_numpy().astype(task.problem.label_type),
    )


def collate(items: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """Pad a batch to its longest example, with the tokenizer's pad token and on its padding side.

    Args:
        items: b items of an `Encoded`.
        tokenizer: the tokenizer that encoded them.
    Returns:
        `input_ids`, `attention_mask` and possibly `token_type_ids`, (b, width) int64; `labels`, (b,) int64, or float32
        for a regression.
    Raises:
        ValueError: the tokenizer has no pad token.

    Example: see `encode`.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError("the tokenizer must have a pad token, got none: set tokenizer.pad_token = tokenizer.eos_token")
    fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id, "attention_mask": 0}
    width = max(len(item["input_ids"]) for item in items)
    batch: dict[str, torch.Tensor] = {}
    for name in items[0].keys() - {"labels"}:
        block = np.full((len(items), width), fill[name], dtype=np.int64)
        for row, item in zip(block, items, strict=True):
            tokens = item[name]
            row[width - len(tokens) if tokenizer.padding_side == "left" else 0 :][: len(tokens)] = tokens
        batch[name] = torch.from_numpy(block)
    labels = [item["labels"] for item in items]
    batch["labels"] = torch.tensor(labels, dtype=torch.float32 if isinstance(labels[0], float) else torch.int64)
    return batch


def _flat(rows: list[list[int]], dtype: Any) -> NDArray[Any]:
    return np.fromiter(chain.from_iterable(rows), dtype=dtype)
