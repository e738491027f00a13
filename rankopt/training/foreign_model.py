"""What has to be known of a model that a user brings: its head, its task, its loss, its frozen weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rankopt.training.pretrained import head_of

TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}
"""Ending of a class name -> PEFT's task type."""


def trained_head(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules beside the backbone, which are trained in full unless the user says otherwise.

    Empty for models other than transformers', for those that generate text, and for modules that share weights with
    the backbone.
    """
    backbone = getattr(model, "base_model_prefix", "")
    if not isinstance(model, PreTrainedModel) or not hasattr(model, backbone) or model.can_generate():
        return ()
    shared = {id(p) for p in model.get_submodule(backbone).parameters()}
    return tuple(
        name
        for name in head_of(model, set())
        if not any(id(p) in shared for p in model.get_submodule(name).parameters())
    )


def output_head(model: nn.Module) -> tuple[str, ...]:
    """Name of the linear map onto the vocabulary, which "all-linear" leaves out as PEFT does."""
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    return tuple(name for name, module in model.named_modules() if module is head) if head is not None else ()


def output_loss(model: nn.Module, batch: Any) -> Tensor:
    """The loss that a transformers model returns; NaN, which no allocator accepts, where it returns none."""
    output = model(**batch)
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if loss is not None:
        return loss  # type: ignore[no-any-return]
    if torch.is_grad_enabled():
        raise ValueError("the model returns no loss for these batches: call adapted.prepare(batches, loss) with one")
    return torch.tensor(math.nan)


def task_type_of(model: nn.Module) -> str | None:
    """PEFT's task type of a text model; None where PEFT's wrapper for a task would get in the way."""
    if not isinstance(model, PreTrainedModel) or model.main_input_name != "input_ids":
        return None
    for ending, kind in TASK_TYPES.items():
        if type(model).__name__.endswith(ending):
            return kind
    if model.can_generate():
        return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
    return None


def hide_frozen_weights(model: nn.Module) -> Any:
    """Leave the frozen weights out of what `save_pretrained` writes, so that a checkpoint has the size of the adapter.

    Returns:
        The names left out before.
    """
    if not isinstance(model, PreTrainedModel):
        return None
    before = model._keys_to_ignore_on_save
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    gates = {name for name in frozen if name.endswith(".g")}
    model._keys_to_ignore_on_save = {*(before or ()), *(frozen - gates)}
    return before
