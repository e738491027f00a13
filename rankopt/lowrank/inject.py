"""Where adapters go: PEFT's conventions for target modules, on any transformers model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import cast

from torch import nn

from rankopt.lowrank.layers import Layers
from rankopt.lowrank.linear import LowRankLinear, is_conv1d
from rankopt.lowrank.linear_regex import linear_time_pattern, matches
from rankopt.lowrank.scale import Scale


def linear_names(model: nn.Module, head: Iterable[str] = ()) -> list[str]:
    """Full names of the linear maps (`nn.Linear`, `Conv1D`) outside the head, in the model's order."""
    excluded = tuple(head)
    return [
        name
        for name, module in model.named_modules()
        if is_linear(module) and not any(_inside(name, part) for part in excluded)
    ]


def target_names(model: nn.Module, target_modules: str | Sequence[str], head: Iterable[str] = ()) -> list[str]:
    """The linear maps that `target_modules` means.

    Args:
        model: the model, not yet injected.
        target_modules: "all-linear", a list of names or name endings (`query` matches `layer.0.query`), or a regular
            expression that must match a whole name.
        head: modules that are trained in full; nothing inside them is adapted.
    Returns:
        Full module names in the model's order.
    Raises:
        ValueError: when nothing matches, or one entry of the list matches nothing; names the nearest.
    Source: PEFT's LoraConfig. Departure: "all-linear" leaves a `pooler` out, since it sits behind the blocks and sees
        one token.
    """
    names = linear_names(model, head)
    if target_modules == "all-linear":
        found = [name for name in names if "pooler" not in name.split(".")]
        if not found:
            raise ValueError("model.target_modules 'all-linear' matches no linear map of this model")
        return found
    if isinstance(target_modules, str):
        try:
            linear_time_pattern(target_modules)
        except ValueError as error:
            raise ValueError(f"model.target_modules {target_modules!r} is no regular expression: {error}") from None
        found = [name for name in names if matches(target_modules, name)]
        if not found:
            raise ValueError(f"model.target_modules {target_modules!r} matches no linear map{_nearest('', names)}")
        return found
    if not target_modules:
        raise ValueError("model.target_modules must not be an empty list")
    for target in target_modules:
        if not any(_ends(name, target) for name in names):
            raise ValueError(f"model.target_modules {target!r} matches no linear map{_nearest(target, names)}")
    return [name for name in names if any(_ends(name, target) for target in target_modules)]


def inject(model: nn.Module, names: Iterable[str], max_rank: int, scale: Scale, dropout: float = 0.0) -> Layers:
    """Replace linear maps by `LowRankLinear` in place; all components are masked, so the model computes as before.

    Args:
        model: changed in place.
        names: full module names, from `target_names`.
        max_rank: components per layer.
        scale: policy and alpha.
        dropout: on the adapters' inputs.
    Returns:
        The layers by name.
    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> inject(model, ["0"], 2, Scale("unit", 1.0))["0"].shape
        Shape(fan_in=4, fan_out=4)
    """
    layers = {}
    for name in names:
        base = model.get_submodule(name)
        if not is_linear(base):
            raise ValueError(f"only linear maps can be adapted, {name!r} is {type(base).__name__}")
        parent, _, child = name.rpartition(".")
        layers[name] = LowRankLinear(cast(nn.Linear, base), max_rank, scale, dropout)
        setattr(model.get_submodule(parent), child, layers[name])
    return layers


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear map that can be adapted."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def _inside(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)


def _nearest(target: str, names: list[str]) -> str:
    endings = sorted({name.rpartition(".")[2] for name in names})
    close = difflib.get_close_matches(target, endings, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; this model has {', '.join(endings[:8])}"
