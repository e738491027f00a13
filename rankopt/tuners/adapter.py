"""Bottleneck adapters in the blocks of a model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field
from safetensors.torch import save_file

from rankopt.tuners.base import Attached, Host, Tuner, head_modules
from rankopt.tuners.bottleneck import Kind, insert

CONFIG, WEIGHTS = "bottleneck_config.json", "bottleneck.safetensors"


class Adapter(Tuner):
    """Small two-layer networks in every block: after its parts, or parallel to its feed-forward part.

        y + U relu(D y + d) + u,   D: (width, hidden),   U: (hidden, width)

    Args:
        kind: "houlsby": after attention and after the feed-forward part; "pfeiffer": after the feed-forward part;
            "parallel": from the input of the feed-forward part to its output.
        width: of the bottleneck.
    Example:
        >>> Adapter(kind="parallel", width=8).width
        8

    Source: Houlsby et al. 2019 (1902.00751); Pfeiffer et al. 2021 (2005.00247); He et al. 2022 (2110.04366).
    Departures: ReLU throughout, no normalisation of the adapter's own and no scale; dropout follows the adapter,
    because it is put on the linear map before the block's dropout; U starts at zero.
    """

    partner: ClassVar[bool] = True

    kind: Kind = "pfeiffer"
    width: Annotated[int, Field(ge=1, le=10**6)] = 16

    def attach(self, host: Host) -> Attached:
        adapters = insert(host.net, host.head, self.kind, self.width)
        parameters = {
            f"{name}.{part}.{key}": value
            for name, adapter in adapters.items()
            for part, module in (("down", adapter.down), ("up", adapter.up))
            for key, value in module.named_parameters()
        }
        return AttachedAdapters(net=host.net, parameters=parameters, tuner=self, head=host.head)


@dataclass(frozen=True, kw_only=True)
class AttachedAdapters(Attached):
    """Bottleneck adapters. PEFT has no format for them, so they are saved in one of ours."""

    tuner: Adapter
    head: tuple[str, ...]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        fields = {"head": list(self.head), **self.tuner.model_dump()}
        (folder / CONFIG).write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        tensors = {name: value.detach() for name, value in self.parameters.items()}
        for part, module in head_modules(self.net, self.head).items():
            tensors |= {f"{part}.{key}": value.detach() for key, value in module.state_dict().items()}
        save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, folder / WEIGHTS)
