"""Merge several adapters into one adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankopt.adapters.adapter import Adapter, read_adapter
from rankopt.adapters.choose import Target, choose, with_one
from rankopt.adapters.compress import refuse_base_changes
from rankopt.adapters.module import Factors, Module
from rankopt.adapters.truncate import difference, padded, stacked, truncate
from rankopt.adapters.write import Update, Written, carried_tensors, verify, write_adapter, write_summary
from rankopt.core.folders import new_folder
from rankopt.importance.spectral import one_thread, singular_values


@one_thread()
def merge_adapters(
    adapters: Sequence[str | Path | Adapter],
    out: str | Path,
    *,
    weights: Sequence[float] | None = None,
    uniform: bool = False,
    **amount: Any,
) -> Written:
    """Write the weighted sum of several adapters of one base model as one adapter.

        W = sum_i w_i s_i B_i A_i

    Without an amount the sum is exact: factors are concatenated, so ranks add up. With an amount it is truncated like
    in `compress`, to the closest update of that size. PEFT's `linear` combination averages factors instead, which adds
    cross terms `B_i A_j`.

    Args:
        adapters: folders, hub ids, or adapters that were already read.
        out: the folder to make; must not exist.
        weights: one per adapter (default: 1 each).
        uniform: use one rank for all modules; needs an amount.
        amount: one of budget, ratio (of the parameters of all adapters together), energy, rank.
    Raises:
        ValueError: the adapters do not fit together, or their sum is not an adapter (DoRA).
        OSError: the result cannot be written.
    """
    sources = [read_adapter(adapter) for adapter in adapters]
    shares = list(weights) if weights is not None else [1.0] * len(sources)
    _refuse_incompatible(sources)
    names = dict.fromkeys(name for source in sources for name in source.modules)
    modules = {name: _module(sources, name) for name in names}
    pattern: Mapping[str, int] = with_one(modules, {name: module.rank for name, module in modules.items()})
    if amount:
        gains = {name: singular_values(*_total(sources, shares, name)).square().numpy() for name in names}
        pattern = choose(modules, gains, Target(uniform=uniform, **amount)).pattern
    updates = [_update(_total(sources, shares, name), modules[name], pattern[name]) for name in names if pattern[name]]
    tensors = _carried(sources, shares, updates)
    with new_folder(Path(out)) as draft:
        write_adapter(draft, sources[0], updates, tensors)
        written = verify(draft, updates, tensors)
        meant = ((name, 1.0, _total(sources, shares, name)) for name in names)
        error, relative_error = difference(meant, written)
        notes = list(dict.fromkeys(repair for source in sources for repair in source.repairs))
        if sources[0].carried:
            notes.append("all other tensors (such as a head) are taken from the first adapter")
        terms = (f"{share:g} x {source.folder.name}" for share, source in zip(shares, sources, strict=True))
        done = Written(
            Path(out),
            f"{' + '.join(terms)}, {written.parameters:,} parameters",
            error,
            relative_error,
            tuple(notes),
        )
        write_summary(draft, {"merged": done.what, "error": done.error, "relative_error": done.relative_error})
    return done


def _refuse_incompatible(sources: Sequence[Adapter]) -> None:
    first = sources[0]
    for source in sources:
        refuse_base_changes(source)
        if source.config.use_dora:
            raise ValueError(
                f"{source.folder}: DoRA adapters cannot be added up, because their magnitudes do not add up"
            )
        one, other = (adapter.config.base_model_name_or_path for adapter in (first, source))
        if one and other and one != other:
            raise ValueError(f"adapters must have the same base model, got {one!r} and {other!r}")
        if source.config.lora_bias != first.config.lora_bias:
            raise ValueError(
                f"adapters must have the same lora_bias, got {first.config.lora_bias} and {source.config.lora_bias}"
            )
        if lost := sorted(set(source.carried) - set(first.carried)):
            raise ValueError(
                f"{source.folder}: {lost[0]} cannot be added up and is kept only from the first adapter; name this "
                "adapter first"
            )
        for name in set(first.modules) & set(source.modules):
            a, b = first.modules[name], source.modules[name]
            if (a.shape, a.kind, a.kernel) != (b.shape, b.kind, b.kernel):
                raise ValueError(
                    f"{name} must have the same shape in all adapters, got {tuple(a.shape)} and {tuple(b.shape)}"
                )


def _module(sources: Sequence[Adapter], name: str) -> Module:
    """A module of the sum: scale 1, and the rank of the concatenated factors."""
    members = [source.modules[name] for source in sources if name in source.modules]
    return replace(
        members[0],
        rank=min(sum(module.rank for module in members), *members[0].shape),
        scale=1.0,
        dtype=reduce(torch.promote_types, (module.dtype for module in members)),
        attached=tuple(dict.fromkeys(key for module in members for key in module.attached)),
        keys={},
    )


def _total(sources: Sequence[Adapter], shares: Sequence[float], name: str) -> Factors:
    """The summed update of a module at scale 1; every term's weight is split evenly between its factors."""
    terms = []
    for source, share in zip(sources, shares, strict=True):
        if name in source.modules:
            weight = share * source.modules[name].scale
            A, B = source.factors(name)
            root = abs(weight) ** 0.5
            terms.append((float(np.sign(weight)), Factors(root * A, root * B)))
    return stacked(terms)


def _update(total: Factors, module: Module, rank: int) -> Update:
    """The sum, truncated if `rank` is smaller than its rank."""
    whole = rank >= len(total.A)
    return Update(module, padded(total if whole else truncate(total, rank), rank), 1.0).rounded()


def _carried(sources: Sequence[Adapter], shares: Sequence[float], updates: Sequence[Update]) -> dict[str, Tensor]:
    """All tensors that are not factors: biases are added up, other attached tensors are taken from the first adapter
    that has the module, and the rest from the first adapter."""
    tensors = carried_tensors(sources[0], ())
    for update in updates:
        for key in update.module.attached:
            owners = [
                (share, source)
                for share, source in zip(shares, sources, strict=True)
                if update.module.name in source.modules and key in source.modules[update.module.name].attached
            ]
            if key.endswith(".lora_B.bias"):
                parts = [
                    share * source.modules[update.module.name].scale * source.tensor(key).double()
                    for share, source in owners
                ]
                tensors[key] = torch.stack(parts).sum(0).to(update.module.dtype)
            else:
                tensors[key] = owners[0][1].tensor(key)
    return tensors
