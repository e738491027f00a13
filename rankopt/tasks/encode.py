"""Tokenise texts once into flat arrays, and pad each batch to its longest example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

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
        labels: (n,) int64 classes, float32 numbers, or the texts of completions (objects).
        starts: (n,) int64, where a completion starts among the tokens of its example; None where no text is predicted.
        shortened: number of examples whose prompt was cut.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.int8] | None
    offsets: NDArray[np.int64]
    labels: NDArray[Any]
    starts: NDArray[np.int64] | None = None
    shortened: int = 0

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) token counts."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One unpadded example: `input_ids`, `attention_mask`, and `labels` or `start`; `token_type_ids` if any."""
        index = range(len(self))[index]  # handles negative and out-of-range indices like a list
        part = slice(self.offsets[index], self.offsets[index + 1])
        item: dict[str, Any] = {"input_ids": self.ids[part]}
        if self.types is not None:
            item["token_type_ids"] = self.types[part]
        item["attention_mask"] = np.ones(len(item["input_ids"]), np.int8)
        if self.starts is not None:
            return item | {"start": int(self.starts[index])}
        return item | {"labels": self.labels[index].item()}

    def select(self, rows: NDArray[np.int64]) -> Encoded:
        """Some of the examples, in the order of `rows`."""
        tokens = np.concatenate([np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows])
        offsets = np.concatenate([[0], np.cumsum(self.lengths[rows])])
        types = None if self.types is None else self.types[tokens]
        starts = None if self.starts is None else self.starts[rows]
        return Encoded(self.ids[tokens], types, offsets, self.labels[rows], starts, self.shortened)


def encode(
    columns: Sequence[str], label_type: str, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Encoded:
    """Tokenise a split without padding; two text columns form a pair.

    Args:
        columns: the text columns.
        label_type: dtype of the labels.
        dataset: rows with these columns and `label`.
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
        >>> words = Tokenizer(models.WordLevel({"?": 0, "good": 1, "film": 2}, unk_token="?"))
        >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?", pad_token="?")
        >>> rows = Dataset.from_dict({"sentence": ["good film", "film"], "label": [1, 0]})
        >>> encoded = encode(["sentence"], "int64", rows, tokenizer, max_length=8)
        >>> encoded.lengths.tolist(), encoded[0]["input_ids"].tolist(), encoded[0]["labels"]
        ([2, 1], [1, 2], 1)
        >>> collate([encoded[0], encoded[1]], tokenizer)["input_ids"].tolist()
        [[1, 2], [2, 0]]
    """
    least = tokenizer.num_special_tokens_to_add(pair=len(columns) == 2) + len(columns)
    if max_length < least:
        raise ValueError(f"task.max_length must be at least {least} with this tokenizer, got {max_length}")
    ids: list[NDArray[np.int32]] = []
    types: list[NDArray[np.int8]] = []
    lengths: list[int] = []
    table = dataset.with_format("arrow")[:]  # whole columns: ten times faster than row by row
    for start in range(0, len(dataset), CHUNK):
        tokens = tokenizer(
            *(table[column].slice(start, CHUNK).to_pylist() for column in columns),
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
        labels=table["label"].to_numpy().astype(label_type),
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
    left = tokenizer.padding_side == "left"
    batch = {
        name: padded([item[name] for item in items], fill[name], left=left) for name in items[0].keys() - {"labels"}
    }
    labels = [item["labels"] for item in items]
    batch["labels"] = torch.tensor(labels, dtype=torch.float32 if isinstance(labels[0], float) else torch.int64)
    return batch


def padded(rows: Sequence[Any], value: int, *, left: bool = False) -> torch.Tensor:
    """Rows of integers as one int64 block, each filled up with `value` on one side.

    Example:
        >>> padded([[1, 2], [3]], 0).tolist(), padded([[1, 2], [3]], 0, left=True).tolist()
        ([[1, 2], [3, 0]], [[1, 2], [0, 3]])
    """
    width = max(map(len, rows))
    block = np.full((len(rows), width), value, dtype=np.int64)
    for line, row in zip(block, rows, strict=True):
        line[width - len(row) if left else 0 :][: len(row)] = row
    return torch.from_numpy(block)


def _flat(rows: list[list[int]], dtype: Any) -> NDArray[Any]:
    return np.fromiter(chain.from_iterable(rows), dtype=dtype)
