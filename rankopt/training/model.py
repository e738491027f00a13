"""A trial's model: frozen weights, adapters and head."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rankopt.core.seeds import stream
from rankopt.core.trial_spec import ModelSpec
from rankopt.lowrank.inject import inject, target_names
from rankopt.lowrank.layers import Layers
from rankopt.lowrank.scale import Scale, ScalePolicy
from rankopt.tasks.base import Task
from rankopt.training.device import choose_device
from rankopt.training.dropout import use_lean_dropout
from rankopt.training.labels import columns_of
from rankopt.training.pretrained import load_pretrained, within


@dataclass(frozen=True)
class Adapted:
    """A frozen model with its adapters.

    Attributes:
        net: the whole model; only the layers' factors and the head are trained.
        tokenizer: the model's.
        layers: the adapted layers by name, all components masked.
        head: names of the modules trained in full.
        columns: the model's output for every label of the task; None where both have the same order.
        base_parameters: number of frozen parameters, adapters excluded.
        head_parameters: number of parameters of the head.
        fingerprint: hash of the frozen weights.
        notes: remarks for the reader of a result.
    """

    net: nn.Module
    tokenizer: PreTrainedTokenizerBase
    layers: Layers
    head: tuple[str, ...]
    columns: tuple[int, ...] | None
    base_parameters: int
    head_parameters: int
    fingerprint: str
    notes: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.net.parameters()).device

    def in_task_order(self, logits: Tensor) -> Tensor:
        """The model's logits, `(b, outputs)`, in the order of the task's labels."""
        return logits if self.columns is None else logits[:, list(self.columns)]


def load_adapted(spec: ModelSpec, policy: ScalePolicy, task: Task, seed: int, device: str = "auto") -> Adapted:
    """Load a model in float32, freeze it, give it a head, and insert adapters.

    The checkpoint's head is kept if it has as many outputs as the task; its outputs are matched with the task's labels
    by name. Otherwise the head is initialised from a random stream of its own, the same for every allocator of a seed.

    Args:
        spec: the model and its target modules.
        policy: scale policy of the adapters.
        task: gives the labels.
        seed: the trial's.
        device: see `choose_device`.
    Raises:
        ValueError: one line when the model or tokenizer cannot be read, a target matches nothing, or torch cannot use
            the device.
    """
    base = load_pretrained(spec.name, spec.revision, task.problem)
    # everything is copied but the frozen weights
    net: nn.Module = copy.deepcopy(
        base.net, {id(p): p for name, p in base.net.named_parameters() if not within(name, base.head)}
    )
    columns, notes = _match_labels(net, task, base.labels)
    torch.manual_seed(stream(seed, "head"))
    with torch.no_grad():
        for name in base.fresh:
            cast(Any, net)._init_weights(net.get_submodule(name))
    names = target_names(net, spec.target_modules, (*base.head, *base.fixed))
    layers = inject(net, names, spec.max_rank, Scale(policy, spec.alpha), spec.dropout)
    head_parameters = 0
    for part in base.head:
        module = net.get_submodule(part).requires_grad_(True)
        head_parameters += sum(p.numel() for p in module.parameters())
    kind = choose_device(device)
    net.to(kind)  # now, so that the tensors in the allocator's state are on the same device
    if kind == "cpu":
        use_lean_dropout(net)
    return Adapted(
        net, base.tokenizer, layers, base.head, columns, base.parameters, head_parameters, base.fingerprint,
        (*base.notes, *notes),
    )  # fmt: skip


def _match_labels(
    net: nn.Module, task: Task, head: Mapping[int, str]
) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """The output for each of the task's labels, and remarks; sets the label names in the model's config."""
    config: Any = net.config
    columns = columns_of(task.labels, head) if head and task.labels else None
    notes: tuple[str, ...] = ()
    if columns is None and task.labels:
        config.id2label = dict(enumerate(task.labels))
        config.label2id = {label: index for index, label in enumerate(task.labels)}
        if head:
            notes = (
                f"the labels of the checkpoint's head ({', '.join(head.values())}) are not the task's "
                f"({', '.join(task.labels)}): its weights are kept, its labels are not",
            )
    if columns == tuple(range(len(task.labels))):
        columns = None
    return columns, notes
