"""LoRA: gated low-rank layers under an allocator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from rankopt.lowrank.export import export_peft
from rankopt.lowrank.inject import inject, target_names
from rankopt.lowrank.layers import pattern_of, shapes_of
from rankopt.lowrank.peft_loader import weightless
from rankopt.lowrank.scale import Scale
from rankopt.tuners.base import Attached, Host, Tuner, head_modules


class Lora(Tuner):
    """Gated low-rank layers, the only tuner with ranks: it needs an allocator, and takes a budget.

        y = W x + bias + s B ((g * m) * (A x))

    `model.target_modules`, `max_rank`, `alpha`, `scale` and `dropout` describe the layers.

    Example:
        >>> Lora().model_dump()
        {}

    Source: Hu et al. 2021 (2106.09685).
    """

    partner: ClassVar[bool] = True

    def attach(self, host: Host) -> Attached:
        # another tuner changes the model's modules, which PEFT's check of an export needs as they were
        bare = None if host.alone else weightless(host.net)
        spec = host.spec
        names = target_names(host.net, spec.target_modules, (*host.head, *host.fixed))
        layers = inject(host.net, names, spec.max_rank, Scale(host.policy, spec.alpha), spec.dropout)
        return AttachedLora(net=host.net, layers=layers, host=host, bare=bare)


@dataclass(frozen=True, kw_only=True)
class AttachedLora(Attached):
    """Gated layers; what is stored is their active components."""

    host: Host
    bare: Any

    def stored(self) -> int:
        return pattern_of(self.layers).parameters(shapes_of(self.layers))

    def save(self, folder: Path) -> None:
        host, model = self.host, self.net if self.bare is None else self.bare
        if self.bare is not None:
            for part, module in head_modules(self.net, host.head).items():
                model.set_submodule(part, module)
        export_peft(
            self.layers, model, folder, head=host.head, base_model=host.source, revision=host.spec.revision,
            task_type=host.task_type,
        )  # fmt: skip

    def merge(self) -> nn.Module:
        for layer in self.layers.values():
            layer.merge()
        net: nn.Module = self.net
        return net
