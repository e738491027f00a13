"""A trial's model: frozen weights, adapters and head."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rankopt.core.pattern import RankPattern
from rankopt.core.seeds import stream
from rankopt.core.trial_spec import ModelSpec
from rankopt.lowrank.layers import Layers, shapes_of
from rankopt.lowrank.quantized import shared_state
from rankopt.lowrank.scale import ScalePolicy
from rankopt.tasks.base import Task
from rankopt.tasks.labels import columns_of
from rankopt.tasks.problems.base import Problem
from rankopt.training.base_weights import checkpoint_blocks
from rankopt.training.device import choose_device
from rankopt.training.dropout import use_lean_dropout
from rankopt.training.pretrained import load_pretrained, model_source, within
from rankopt.tuners.base import Attached, Batch, Host, Tuner, head_modules
from rankopt.tuners.build import attach_all
from rankopt.tuners.lora import Lora

LORA_ALONE: Mapping[str, Tuner] = {"lora": Lora()}


@dataclass(frozen=True)
class Adapted:
    """A frozen model with what its tuners attached.

    Attributes:
        net: the whole model; only the head and what the tuners attached are trained.
        tokenizer: the model's.
        layers: the gated layers of LoRA by name, all components masked; empty without it.
        head: names of the modules trained in full.
        columns: the model's output for every label of the task; None where both have the same order.
        base_parameters: number of frozen parameters, adapters excluded.
        head_parameters: number of parameters of the head.
        fingerprint: hash of the frozen weights.
        notes: remarks for the reader of a result.
        attached: what each tuner attached, by the tuner's name.
        preparation: seconds that attaching took and batches that it read, if it read any.
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
    attached: Mapping[str, Attached] = field(default_factory=dict)
    preparation: Mapping[str, float] = field(default_factory=dict)

    @property
    def model(self) -> Any:
        """The transformers model, which PEFT's may contain."""
        net: Any = self.net
        return net.get_base_model() if hasattr(net, "get_base_model") else net

    @property
    def others(self) -> dict[str, Attached]:
        """What was attached beside gated layers."""
        return {name: one for name, one in self.attached.items() if not one.layers}

    def heads(self) -> dict[str, nn.Module]:
        """The modules of the head by name."""
        return head_modules(self.net, self.head)

    def stored(self, pattern: RankPattern) -> int:
        """The parameters stored beside the base model under a pattern, without the head."""
        return pattern.parameters(shapes_of(self.layers)) + sum(one.stored() for one in self.others.values())

    def tuner_states(self) -> dict[str, dict[str, Any]]:
        """What a checkpoint saves of the tuners other than LoRA."""
        return {
            name: {"parameters": {key: p.detach() for key, p in one.parameters.items()}, "state": one.state()}
            for name, one in self.others.items()
        }

    @torch.no_grad()
    def restore_tuners(self, saved: Mapping[str, dict[str, Any]]) -> None:
        """Restore what `tuner_states` returned."""
        for name, one in self.others.items():
            for key, value in saved[name]["parameters"].items():
                one.parameters[key].copy_(value)
            one.restore(saved[name]["state"])

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.net.parameters()).device

    def in_task_order(self, logits: Tensor) -> Tensor:
        """The model's logits, `(b, outputs)`, in the order of the task's labels."""
        return logits if self.columns is None else logits[:, list(self.columns)]


def load_adapted(
    spec: ModelSpec, policy: ScalePolicy, task: Task, seed: int, device: str = "auto",
    tuners: Mapping[str, Tuner] = LORA_ALONE, steps: int = 1,
    batches: Callable[[Adapted], Iterable[Batch]] = lambda adapted: (),
) -> Adapted:  # fmt: skip
    """Load a model, freeze it, give it a head, and attach tuners.

    The checkpoint's head is kept if it has as many outputs as the task; its outputs are matched with the task's labels
    by name. Otherwise the head is initialised from a random stream of its own, the same for every allocator of a seed.

    Args:
        spec: the model and its target modules.
        policy: scale policy of gated layers.
        task: gives the labels and the loss.
        seed: the trial's.
        device: see `choose_device`.
        tuners: what is trained, by the tuner's name.
        steps: optimiser steps.
        batches: the training batches for a model, from the first one; for tuners that read data before they start.
    Raises:
        ValueError: one line when the model or tokenizer cannot be read, a target matches nothing, or torch cannot use
            the device.
    """
    where = choose_device(device)
    base = load_pretrained(spec, task.problem, where)
    # everything is copied but the frozen weights
    frozen = {id(p): p for name, p in base.net.named_parameters() if not within(name, base.head)}
    net: nn.Module = copy.deepcopy(base.net, frozen | shared_state(base.net))
    columns, notes = _match_labels(net, task, base.labels)
    torch.manual_seed(stream(seed, "head"))
    with torch.no_grad():
        for name in base.fresh:
            cast(Any, net)._init_weights(net.get_submodule(name))
    head_parameters = 0
    for part in base.head:
        module = net.get_submodule(part).requires_grad_(True)
        head_parameters += sum(p.numel() for p in module.parameters())
    net.to(where)  # now, so that the tensors in the allocator's state are on the same device
    bare = Adapted(
        net, base.tokenizer, {}, base.head, columns, base.parameters, head_parameters, base.fingerprint,
        (*base.notes, *notes),
    )  # fmt: skip
    problem, source = task.problem, model_source(spec.name)
    kind = problem.task_type(bool(bare.model.config.is_encoder_decoder))
    host = Host(
        net, base.head, spec, policy, kind, source, steps, fixed=base.fixed, batches=lambda: batches(bare),
        loss=partial(_loss, bare, problem),
    )  # fmt: skip
    torch.manual_seed(stream(seed, "tuner"))
    adapted = _attached(bare, tuners, host)
    if spec.gradient_checkpointing:
        checkpoint_blocks(adapted.model)
    if where == "cpu":
        use_lean_dropout(adapted.model)
    return adapted


def _attached(bare: Adapted, tuners: Mapping[str, Tuner], host: Host) -> Adapted:
    """A model with its tuners attached."""
    read, began = 0, time.perf_counter()

    def counted() -> Iterator[Batch]:
        nonlocal read
        for batch in host.batches():
            read += 1
            yield batch

    attached = attach_all(tuners, replace(host, batches=counted))
    layers = next((one.layers for one in attached.values() if one.layers), {})
    preparation = {"seconds": time.perf_counter() - began, "batches": read} if read else {}
    return replace(bare, net=list(attached.values())[-1].net, layers=layers, attached=attached, preparation=preparation)


def _loss(bare: Adapted, problem: Problem, net: Any, batch: Batch) -> Tensor:
    """The mean task loss of a batch."""
    inputs, labels = {key: value for key, value in batch.items() if key != "labels"}, batch["labels"]
    return problem.loss(bare.in_task_order(net(**inputs).logits.float()), labels) / problem.items(labels)


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
