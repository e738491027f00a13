"""Compress an adapter: choose ranks by knapsack, truncate the factors, and measure the error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rankopt.adapters.adapter import Adapter, read_adapter
from rankopt.adapters.choose import RankChoice, choose, target_of
from rankopt.adapters.module import Factors
from rankopt.adapters.servers import Server, check_as_read, refuse_unserved, served_dtype, server_of
from rankopt.adapters.truncate import distance, padded, truncate, truncate_weighted
from rankopt.adapters.write import Update, carried_tensors, verify, write_adapter, write_summary
from rankopt.core.folders import new_folder
from rankopt.importance.spectral import one_thread, singular_values

EXPERT = re.compile(r"\.experts\.\d+\.")
"""A module of one expert, as transformers 4 named it."""


@dataclass(frozen=True)
class Cut:
    """The effect of compression on one module.

    Attributes:
        rank: components before.
        kept: components after.
        norm: Frobenius norm of the original update.
        error: Frobenius norm of the difference, measured on the written file.
        bound: the error that truncation guarantees, `sqrt(sum_(i > kept) S_i^2)`. None if the truncation was weighted
            by inputs, which is optimal in another norm.
    """

    rank: int
    kept: int
    norm: float
    error: float
    bound: float | None


@dataclass(frozen=True)
class Compression:
    """A compressed adapter and its error.

    Attributes:
        folder: the new adapter.
        cuts: by module.
        parameters_before, parameters: of the low-rank factors.
        energy: kept share of the squared norm; with inputs, of the mean squared output.
        error: Frobenius norm of the difference over all modules.
        relative_error: the same relative to the norm of the original updates.
        exact: whether the ranks are the optimum for their number of parameters.
        weighted_error: with inputs, the root mean square change of the modules' outputs, relative to the outputs.
        notes: remarks for the reader.
        command: what to type to serve it, for a server.
    """

    folder: Path
    cuts: Mapping[str, Cut]
    parameters_before: int
    parameters: int
    energy: float
    error: float
    relative_error: float
    exact: bool
    weighted_error: float | None
    notes: tuple[str, ...]
    command: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"folder": self.folder.name}


@one_thread()
def compress(
    adapter: str | Path | Adapter,
    out: str | Path,
    *,
    budget: int | None = None,
    ratio: float | None = None,
    energy: float | None = None,
    rank: int | None = None,
    uniform: bool = False,
    moments: Mapping[str, Tensor] | None = None,
    server: str | None = None,
) -> Compression:
    """Write the closest smaller adapter.

    Every module's update is truncated to its largest singular values. An exact knapsack chooses the ranks:

        minimise  sum_k sum_(i > r_k) S_ki^2    subject to    sum_k r_k (in_k + out_k) <= budget

    No adapter of the same number of parameters on the same modules has a smaller error in the Frobenius norm. Modules
    of unchanged rank keep their tensors bit for bit, modules of rank 0 are removed, and all other tensors
    (`modules_to_save`, biases, DoRA's magnitudes) are copied. The folder is created only after what was written has
    been read again and compared.

    Args:
        adapter: a folder, a hub id, or an adapter that was already read.
        out: the folder to make; must not exist.
        budget: largest number of parameters of the factors. Give exactly one of budget, ratio, energy and rank.
        ratio: the same as a share of the adapter's parameters.
        energy: smallest share of the squared norm to keep, with as few parameters as possible.
        rank: largest rank of every module.
        uniform: use one rank and one alpha for all modules; modules with fewer components are padded with zeros.
        moments: H = E[(A x)(A x)^T] `(r, r)` per module, from `calibrate`; weights the norm by inputs.
        server: write what "vllm", "sglang" or "llama.cpp" reads (`rankopt.adapters.servers`): the scales that it
            computes, uniform ranks where it needs them, 16 or 32 bits. Updates do not change: a scale is moved into the
            factors.
    Returns:
        The effect on every module.
    Raises:
        ValueError: wrong arguments, an adapter that cannot be compressed, or one that the server cannot read.
        OSError: the result cannot be written.
    Example:
        >>> import rankopt
        >>> rankopt.compress("adapter", "small", ratio=0.5, rank=2)
        Traceback (most recent call last):
        ValueError: give exactly one of budget, ratio, energy, rank, got ratio and rank

    Source: Eckart and Young 1936 for every module; the knapsack over modules is exact because the gains fall.
    """
    rules = None if server is None else server_of(server)
    uniform = uniform or (rules is not None and not rules.mixed)
    target = target_of(uniform, budget=budget, ratio=ratio, energy=energy, rank=rank)
    source = read_adapter(adapter)
    refuse_base_changes(source)
    if rules:
        refuse_unserved(source, rules)
    gains = {name: _gains(source, name, moments) for name in source.modules}
    choice = choose(source.modules, gains, target)
    scales = _scales(source, choice.pattern, uniform, rules)
    updates = []
    for name in source.modules:
        if choice.pattern[name]:
            update = _rescaled(_update(source, name, choice.pattern[name], moments), scales[name])
            if rules:
                update = replace(update, module=replace(update.module, dtype=served_dtype(update.module.dtype)))
            updates.append(update.rounded())
    with new_folder(Path(out)) as draft:
        carried = carried_tensors(source, updates)
        write_adapter(draft, source, updates, carried)
        written = verify(draft, updates, carried)
        done = _outcome(Path(out), source, choice, written, gains, moments)
        if rules:
            check_as_read(written, rules)
            done = replace(done, command=rules.command(source, Path(out), written.config.r))
        write_summary(draft, done.to_json())
    return done


def refuse_base_changes(source: Adapter) -> None:
    """Refuse an adapter for which PEFT changes the base weights when it loads it, in a way that depends on the rank.

    Raises:
        ValueError: the adapter has such an initialisation.
    """
    if source.config.changes_base:
        raise ValueError(
            f"{source.folder}: init_lora_weights must not change the base weights, got "
            f"{source.config.init_lora_weights!r}; save the adapter with PEFT's "
            "path_initial_model_for_weight_conversion first"
        )


def _gains(source: Adapter, name: str, moments: Mapping[str, Tensor] | None) -> NDArray[np.float64]:
    """The gain of every component of a module, decreasing."""
    factors, scale = source.factors(name), source.modules[name].scale
    if moments is None:
        return (scale * singular_values(*factors)).square().numpy()
    return (scale**2 * truncate_weighted(factors, moments[name].double(), len(factors.A))[1]).numpy()


def _update(source: Adapter, name: str, rank: int, moments: Mapping[str, Tensor] | None) -> Update:
    module, factors = source.modules[name], source.factors(name)
    if rank >= module.rank:
        cut = padded(factors, rank)
    elif moments is None:
        cut = truncate(factors, rank)
    else:
        cut = truncate_weighted(factors, moments[name].double(), rank)[0]
    return Update(module, cut, module.scale)


def _scales(source: Adapter, pattern: Mapping[str, int], uniform: bool, rules: Server | None) -> Mapping[str, float]:
    """The scale of every written module: its own, unless one alpha or a server's rule asks for another."""
    scales = {name: source.modules[name].scale for name, rank in pattern.items() if rank}
    if not uniform and rules is None:
        return scales
    one = next(iter(scales.values())) if len(set(scales.values())) == 1 else 1.0
    alpha = one * max(pattern.values())
    by_module = rules is not None and rules.by_module
    return {name: alpha / pattern[name] if by_module and not uniform else one for name in scales}


def _rescaled(update: Update, scale: float) -> Update:
    """The same update with another scale; the change is split evenly between the factors."""
    if update.scale == scale:
        return update
    change = update.scale / scale
    root = abs(change) ** 0.5
    return replace(
        update, factors=Factors(root * update.factors.A, np.sign(change) * root * update.factors.B), scale=scale
    )


def _outcome(
    folder: Path,
    source: Adapter,
    choice: RankChoice,
    written: Adapter,
    gains: Mapping[str, NDArray[np.float64]],
    moments: Mapping[str, Tensor] | None,
) -> Compression:
    cuts = {}
    for name, module in source.modules.items():
        factors, kept = source.factors(name), min(choice.pattern[name], module.rank)
        norm = float(abs(module.scale) * singular_values(*factors).norm())
        error = norm
        if name in written.modules:
            error = distance((module.scale, factors), (written.modules[name].scale, written.factors(name)))
        bound = None if moments else float(np.sqrt(gains[name][kept:].sum()))
        cuts[name] = Cut(module.rank, choice.pattern[name], norm, error, bound)
    error, norm = (sum(getattr(cut, what) ** 2 for cut in cuts.values()) ** 0.5 for what in ("error", "norm"))
    return Compression(
        folder=folder,
        cuts=cuts,
        parameters_before=source.parameters,
        parameters=choice.parameters,
        energy=choice.energy,
        error=error,
        relative_error=error / norm if norm else 0.0,
        exact=choice.exact,
        weighted_error=max(0.0, 1 - choice.energy) ** 0.5 if moments else None,
        notes=tuple(remarks(source)),
    )


def remarks(source: Adapter) -> list[str]:
    """Remarks about an adapter: repaired names, and what the reported numbers do not include."""
    found = [*source.repairs]
    if source.config.use_dora:
        found.append(
            "DoRA: the numbers describe the low-rank part; the magnitudes are kept, and each row of the weight is "
            "still normalised to them after the low-rank part is added"
        )
    if source.config.changes_base:
        found.append(
            f"init_lora_weights is {source.config.init_lora_weights!r}: PEFT also changes the base weights when it "
            "loads the adapter; the numbers describe the stored factors"
        )
    if source.config.lora_bias:
        found.append("lora_bias: the biases are kept, and the numbers do not include them")
    if any(EXPERT.search(name) for name in source.modules):
        found.append(
            "the adapter has a module per expert; transformers 5 fuses the experts, so PEFT may not load the result"
        )
    return found
