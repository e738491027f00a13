"""Bottleneck adapters: the module, and where they go in a model's blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rankopt.core.path import depth_and_module
from rankopt.lowrank.inject import linear_names
from rankopt.lowrank.linear import LowRankLinear

Kind = Literal["houlsby", "pfeiffer", "parallel"]


class Bottleneck(nn.Module):
    """A linear map of a block with an adapter on its output.

        y = W x + bias;   serial: y + U relu(D y + d) + u;   parallel: y + U relu(D z + d) + u

    z is the input of the block's feed-forward part. U and u start at zero, so outputs do not change at first.

    Args:
        base: the linear map, with outputs `(..., out)`.
        width: of the bottleneck.
        out: number of outputs, also of z.
        source: for a parallel adapter, remembers z.
    """

    def __init__(self, base: nn.Module, width: int, out: int, source: Source | None) -> None:
        super().__init__()
        device = next(base.parameters()).device
        self.base, self.source = base, source
        self.down = nn.Linear(out, width, device=device)
        self.up = nn.Linear(width, out, device=device)
        with torch.no_grad():
            self.up.weight.zero_()
            self.up.bias.zero_()
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        y = cast(Tensor, self.base(x))
        z = y if self.source is None else self.source.take()
        return y + cast(Tensor, self.up(functional.relu(self.down(z))))


class Source:
    """Remembers the input of a module until the adapter has used it."""

    def __init__(self, module: nn.Module) -> None:
        self.value: Tensor | None = None
        module.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.value = inputs[0]

    def take(self) -> Tensor:
        """The input, which is then forgotten."""
        value, self.value = self.value, None
        if value is None:
            raise ValueError("a parallel adapter must run after the first map of its feed-forward part")
        return value


class Sites(NamedTuple):
    """The maps of one block: attention's output, the first and the last of the feed-forward part."""

    attention: str | None
    first: str
    last: str


def sites_of(net: nn.Module, head: Sequence[str]) -> list[Sites]:
    """The maps of every block, found by their shapes.

    The feed-forward part ends in the block's last map that narrows to the hidden size, and begins with the first map
    of that intermediate size. Attention ends in the last map to the hidden size before it.

    Args:
        net: a transformers model.
        head: modules to leave out.
    Raises:
        ValueError: a model without such blocks.
    """
    blocks: dict[str, list[str]] = {}
    for name in linear_names(net, head):
        block, _ = depth_and_module(name.removesuffix(".base"))
        if block != "-":
            blocks.setdefault(block, []).append(name)
    found = [sites for names in blocks.values() if (sites := _sites(net, names))]
    if not found:
        raise ValueError("tuner.name must not be 'adapter' for a model without feed-forward blocks of linear maps")
    return found


def _sites(net: nn.Module, names: list[str]) -> Sites | None:
    shapes = {name: _shape(net.get_submodule(name)) for name in names}
    last = next((name for name in reversed(names) if shapes[name][0] > shapes[name][1]), None)
    if last is None:
        return None
    inner, hidden = shapes[last]
    first = next((name for name in names if shapes[name] == (hidden, inner)), None)
    if first is None:
        return None
    before = [name for name in names[: names.index(first)] if shapes[name][1] == hidden]
    return Sites(before[-1] if before else None, first, last)


def _shape(module: Any) -> tuple[int, int]:
    """(inputs, outputs) of a linear map."""
    shape = LowRankLinear.shape_of(module)
    return shape.fan_in, shape.fan_out


def insert(net: nn.Module, head: Sequence[str], kind: Kind, width: int) -> dict[str, Bottleneck]:
    """Put adapters into the blocks of a model, in place.

    Args:
        net: a transformers model.
        head: modules to leave out.
        kind: "houlsby" after attention and the feed-forward part, "pfeiffer" after the latter, "parallel" to it.
        width: of the bottlenecks.
    Returns:
        The adapters by the name of the map they follow.
    """
    return dict(_inserted(net, sites_of(net, head), kind, width))


def _inserted(net: nn.Module, blocks: list[Sites], kind: Kind, width: int) -> Iterator[tuple[str, Bottleneck]]:
    for sites in blocks:
        after = [sites.attention, sites.last] if kind == "houlsby" else [sites.last]
        for name in filter(None, (_outer(net, site) for site in after if site)):
            source = Source(net.get_submodule(_outer(net, sites.first))) if kind == "parallel" else None
            base = net.get_submodule(name)
            inner = base.base if isinstance(base, LowRankLinear) else base
            adapter = Bottleneck(base, width, _shape(inner)[1], source)
            net.set_submodule(name, adapter)
            yield name, adapter


def _outer(net: nn.Module, name: str) -> str:
    """The name of the gated layer around a map, where there is one."""
    outer = name.removesuffix(".base")
    return outer if isinstance(net.get_submodule(outer), LowRankLinear) else name
