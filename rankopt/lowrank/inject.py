"""Find the target modules of a model by PEFT's rules, and put adapters into it."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from torch import Tensor, nn

from rankopt.lowrank.conv import LowRankConv, is_conv
from rankopt.lowrank.layers import Layers
from rankopt.lowrank.linear import LowRankLinear, is_conv1d
from rankopt.lowrank.linear_regex import linear_time_pattern, matches
from rankopt.lowrank.peft_loader import ignored_targets
from rankopt.lowrank.scale import Scale


def linear_names(model: nn.Module, head: Iterable[str] = ()) -> list[str]:
    """Full names of the linear maps (`nn.Linear`, `Conv1D`) outside the head, in the model's order."""
    return _names(model, head, is_linear)


def target_names(
    model: nn.Module, target_modules: str | Sequence[str], head: Iterable[str] = (), *, convolutions: bool = False
) -> list[str]:
    """The linear maps that `target_modules` selects.

    Args:
        model: the model, before `inject`.
        target_modules: "all-linear", a list of names or name endings (`query` matches `layer.0.query`), or a regular
            expression that must match a whole name.
        head: modules that are trained in full; nothing inside them is adapted.
        convolutions: whether a list or a regular expression may select convolutions too.
    Returns:
        Full module names in the model's order.
    Raises:
        ValueError: nothing matches, an entry of the list matches nothing, or PEFT cannot load an adapter on a match.
    Source: PEFT's LoraConfig. Differences: "all-linear" skips a `pooler`, which follows the blocks and sees one token,
        and the modules of mixture-of-experts models on which PEFT cannot load adapters.
    """
    names = linear_names(model, head)
    blocks = [name for name in names if "pooler" not in name.split(".")]
    if convolutions and target_modules != "all-linear":
        names = _names(model, head, lambda module: is_linear(module) or is_conv(module))
    elif not blocks:
        raise ValueError(f"model.target_modules {target_modules!r} matches no linear map of this model{_others(model)}")
    if target_modules == "all-linear":
        ignored = ignored_targets(model, blocks)
        if len(ignored) == len(blocks):
            raise ValueError(
                "model.target_modules 'all-linear' matches no linear map of this model that PEFT can adapt"
            )
        return [name for name in blocks if name not in ignored]
    found = _selected(names, target_modules)
    if ignored := ignored_targets(model, found):
        raise ValueError(
            f"model.target_modules must leave out {min(ignored)!r}: on this model PEFT takes its name for fused expert "
            "weights and cannot load an adapter for it"
        )
    return found


def _selected(names: list[str], target_modules: str | Sequence[str]) -> list[str]:
    """The names that a regular expression or a list of endings matches."""
    if isinstance(target_modules, str):
        try:
            linear_time_pattern(target_modules)
        except ValueError as error:
            raise ValueError(f"model.target_modules {target_modules!r} is not a regular expression: {error}") from None
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
    """Replace maps by their gated layers in place; all components are masked, so outputs do not change.

    Args:
        model: changed in place.
        names: full module names, from `target_names`.
        max_rank: components per layer.
        scale: policy and alpha.
        dropout: probability on the adapters' inputs.
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
        if not is_linear(base) and not is_conv(base):
            raise ValueError(f"only linear maps and convolutions can be adapted, {name!r} is a {type(base).__name__}")
        parent, _, child = name.rpartition(".")
        kind = LowRankConv if is_conv(base) else LowRankLinear
        layers[name] = kind(cast(nn.Linear, base), max_rank, scale, dropout)
        setattr(model.get_submodule(parent), child, layers[name])
    return layers


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear map that can be adapted."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def _names(model: nn.Module, head: Iterable[str], selects: Callable[[nn.Module], bool]) -> list[str]:
    excluded = tuple(head)
    return [
        name
        for name, module in model.named_modules()
        if selects(module) and not any(_inside(name, part) for part in excluded)
    ]


def _inside(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)


def _others(model: nn.Module) -> str:
    """What a model without linear maps has instead."""
    kinds = Counter(
        type(module).__name__
        for module in model.modules()
        if isinstance(weight := getattr(module, "weight", None), Tensor)
        and weight.ndim > 1
        and not type(module).__name__.endswith("Embedding")
        and not is_linear(module)
    )
    held = "; its weights are in " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(3))
    return (held if kinds else "") + "; only nn.Linear and GPT-2's Conv1D can be adapted, choose another model"


def _nearest(target: str, names: list[str]) -> str:
    endings = sorted({name.rpartition(".")[2] for name in names})
    close = difflib.get_close_matches(target, endings, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; this model has {', '.join(endings[:8])}"
