"""A dry run: one batch at full length through a model of zeros, before a study starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from rankopt.core.trial_spec import ModelSpec
from rankopt.lowrank.linear import is_conv1d
from rankopt.tasks.encode import Encoded
from rankopt.tasks.problems.base import Problem
from rankopt.training.data import Data
from rankopt.training.pretrained import load_tokenizer
from rankopt.training.skeleton import model_from_config


def check_batch(spec: ModelSpec, data: Data, max_length: int, problem: Problem, extra: int = 0) -> None:
    """Run the longest and the shortest example as one batch through a model of zeros that has the config's shapes.

    Args:
        spec: the model.
        data: the task's splits, encoded by the model's tokenizer.
        max_length: the task's, for the message.
        problem: gives the model's class and makes batches.
        extra: positions that prompts and prefixes take.
    Raises:
        ValueError: the model has too few positions for the longest example, or too few embeddings for a token.
    """
    tokenizer = load_tokenizer(spec.name, spec.revision)
    splits = (data.train, *data.held_out.values())
    long, short = _longer(_extreme(splits, np.argmax), extra), _extreme(splits, np.argmin)
    net = _zero_model(spec, problem)
    net.config.pad_token_id = tokenizer.pad_token_id

    def runs(items: list[dict[str, Any]]) -> bool:
        batch = problem.collate(items, tokenizer, net.config)
        try:
            with torch.no_grad():
                net(**{key: value for key, value in batch.items() if key != "labels"})
        except Exception:
            return False
        return True

    if runs([long, short]):
        return
    embeddings = net.get_input_embeddings()
    if isinstance(embeddings, nn.Embedding):
        count, largest = embeddings.num_embeddings, max(int(split.ids.max()) for split in splits)
        if largest >= count:
            raise ValueError(
                f"model.name must have an embedding for every token of its tokenizer, got {spec.name!r} with {count} "
                f"embeddings for token {largest} ({tokenizer.convert_ids_to_tokens(largest)!r})"
            )
        if tokenizer.pad_token_id >= count:
            raise ValueError(
                f"model.name must have an embedding for its pad token {tokenizer.pad_token!r} (number "
                f'{tokenizer.pad_token_id}), got {spec.name!r} with {count} embeddings; set another "pad_token" in '
                f"its tokenizer_config.json"
            )
    limit = _longest(lambda length: runs([_cut(long, length)]), len(long["input_ids"]))
    if limit:
        if limit <= extra:
            raise ValueError(f"tuner must take fewer than the {limit} positions of {spec.name!r}, got {extra}")
        beside = f" less {extra} of the tuner" if extra else ""
        raise ValueError(
            f"task.max_length must be at most {limit - extra}, the number of positions of {spec.name!r}{beside}, "
            f"got {max_length}"
        )


def _zero_model(spec: ModelSpec, problem: Problem) -> Any:
    """A model whose weights are zeros without storage, and whose linear maps return zeros without arithmetic."""
    with init_empty_weights(include_buffers=False):  # buffers hold positions
        net = model_from_config(spec, problem).eval()
    for module in net.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            zeros = torch.zeros((), dtype=torch.float32).expand(parameter.shape)
            setattr(module, name, nn.Parameter(zeros, requires_grad=False))
        if isinstance(module, nn.Linear) or is_conv1d(module):
            width = module.out_features if isinstance(module, nn.Linear) else module.nf
            module.forward = _zeros(cast(int, width))
    return net


def _zeros(width: int) -> Callable[[Tensor], Tensor]:
    return lambda x: x.new_zeros(*x.shape[:-1], width)


def _extreme(splits: tuple[Encoded, ...], choose: Callable[[Any], Any]) -> dict[str, Any]:
    """The longest or shortest example of all splits."""
    found = [split[int(choose(split.lengths))] for split in splits]
    return found[int(choose([len(item["input_ids"]) for item in found]))]


def _longer(item: dict[str, Any], extra: int) -> dict[str, Any]:
    """An example with its first token repeated."""
    return {
        name: np.concatenate([value[:1].repeat(extra), value]) if isinstance(value, np.ndarray) else value
        for name, value in item.items()
    }


def _cut(item: dict[str, Any], length: int) -> dict[str, Any]:
    """An example with fewer tokens; its last one, which a model may require, stays."""
    return {
        name: np.concatenate([value[: length - 1], value[-1:]]) if isinstance(value, np.ndarray) else value
        for name, value in item.items()
    }


def _longest(runs: Callable[[int], bool], length: int) -> int:
    """The largest length below `length` that runs, by bisection; 0 where none does."""
    low, high = 0, length
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if runs(middle) else (low, middle)
    return low
