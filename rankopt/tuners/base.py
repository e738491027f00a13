"""The protocol of a tuner: what is trained beside the frozen base model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from rankopt.core.trial_spec import ModelSpec
from rankopt.lowrank.layers import Layers
from rankopt.lowrank.scale import ScalePolicy

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Host:
    """A frozen model with a trained head, which tuners are attached to.

    Attributes:
        net: a transformers model; changed in place.
        head: names of the modules that every trial trains in full.
        spec: the model's spec, for the tuner `lora`.
        policy: scale policy of `lora`.
        task_type: PEFT's name of the problem.
        source: folder or hub name of the weights, which saved adapters record.
        steps: optimiser steps of the trial.
        alone: whether only one tuner is attached.
        fixed: further modules in which LoRA adapts nothing.
        batches: the trial's training batches, `labels` included, from the first one; for starts that read data.
        loss: the mean task loss of a model on a batch; None where parameters are only counted.
    """

    net: Any
    head: tuple[str, ...]
    spec: ModelSpec
    policy: ScalePolicy = "unit"
    task_type: str = "SEQ_CLS"
    source: str = ""
    steps: int = 1000
    alone: bool = True
    fixed: tuple[str, ...] = ()
    batches: Callable[[], Iterable[Batch]] = lambda: ()
    loss: Callable[[nn.Module, Batch], Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class Attached(ABC):
    """What a tuner has put into a model. The head is counted, trained and saved apart from it.

    Attributes:
        net: the model to run from now on.
        parameters: what is trained, by name; empty for `lora`, whose layers an allocator controls.
        layers: the gated layers of `lora`.
    """

    net: Any
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    layers: Layers = field(default_factory=lambda: MappingProxyType({}))

    def stored(self) -> int:
        """How many numbers must be stored beside the base model, without the head."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what was trained, head included, to a new folder that `rankopt.tuners.saved.load` reads.

        Raises:
            OSError: the folder cannot be written.
        """

    def merge(self) -> nn.Module:
        """The model with the change added to its own weights; it computes the same.

        Raises:
            ValueError: the change is not one of the weights.
        """
        raise ValueError(f"{type(self).__name__} cannot be merged into the weights of the model")

    def penalty(self) -> Tensor | None:
        """A scalar added to the task loss, or None."""
        return None

    def after_step(self, step: int) -> None:
        """Run after optimiser step `step` = 1..T, before gradients are zeroed."""
        return

    def state(self) -> dict[str, Any]:
        """Plain data that a checkpoint saves beside the parameters."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        return


class Tuner(BaseModel, ABC):
    """Decides what is trained. Its fields are its options and enter the trial's key; it is frozen.

    Attributes:
        partner: whether it may be listed beside other tuners.
        wraps: whether it replaces the model by one that contains it, which only one tuner of a trial can do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    partner: ClassVar[bool] = False
    wraps: ClassVar[bool] = False

    def positions(self) -> int:
        """How many of the model's positions it takes from the input."""
        return 0

    @abstractmethod
    def attach(self, host: Host) -> Attached:
        """Put what is trained into a model.

        Raises:
            ValueError: this model cannot be tuned in this way; one line.
        """


def head_modules(net: Any, head: Sequence[str]) -> dict[str, nn.Module]:
    """The trained head of a model by name, also where PEFT has wrapped a copy of it.

    Args:
        net: a transformers model, or PEFT's around it.
        head: names of its fully trained modules.
    """
    inner = net.get_base_model() if hasattr(net, "get_base_model") else net
    found = {part: inner.get_submodule(part) for part in head}
    return {part: _unwrapped(module) for part, module in found.items()}


def _unwrapped(module: Any) -> nn.Module:
    copies = getattr(module, "modules_to_save", None)
    trained: nn.Module = module if copies is None else copies["default"]
    return trained
