"""Compressing an adapter: the ranks by knapsack, the factors by truncated decomposition, the error measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rankopt.adapters.adapter import Adapter, Factors, read_adapter
from rankopt.adapters.choose import RankChoice, Target, choose
from rankopt.adapters.truncate import distance, padded, truncate, truncate_weighted
from rankopt.adapters.write import Update, carried_tensors, verify, write_adapter, write_summary
from rankopt.core.folders import new_folder
from rankopt.importance.spectral import one_thread, singular_values


@dataclass(frozen=True)
class Cut:
    """What compressing did to one module.

    Attributes:
        rank: components before.
        kept: components after.
        norm: Frobenius norm of the update before.
        error: Frobenius norm of the difference, measured on the file that was written.
        bound: what the decomposition guarantees: the tail `sqrt(sum_(i > kept) S_i^2)`; None when the truncation was
            weighted by inputs, which is optimal in another norm.
    """

    rank: int
    kept: int
    norm: float
    error: float
    bound: float | None


@dataclass(frozen=True)
class Compression:
    """An adapter that was written, and what it lost.

    Attributes:
        folder: the new adapter.
        cuts: by module.
        parameters_before, parameters: of the low-rank factors.
        energy: the share of the criterion kept (of the squared norm; with inputs, of the mean squared output).
        error: Frobenius norm of the whole difference; relative to the norm of the whole update: `relative_error`.
        exact: whether no pattern of as many parameters keeps more.
        weighted_error: with inputs, root mean square of the change of the modules' outputs, relative to the outputs.
        notes: what a reader must know.
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

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data."""
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
) -> Compression:
    """Write the best smaller version of an adapter.

    Every module's update is replaced by its truncated decomposition, and the ranks are those that keep the most squared
    norm for their true parameter cost, by an exact knapsack. So the squared error is the sum of the squared singular
    values cut, and no adapter of as many parameters on these modules is closer.

        minimise  sum_k sum_(i > r_k) S_ki^2    subject to    sum_k r_k (in_k + out_k) <= budget

    Modules that are kept whole keep their tensors bit for bit; modules of rank 0 are no targets any more; every other
    tensor (`modules_to_save`, biases, DoRA's magnitudes) is carried along. The folder appears whole, after it was read
    again and compared, or not at all.

    Args:
        adapter: a folder, a hub id, or an adapter that was read.
        out: the folder to make; must not exist.
        budget: parameters of the factors to keep. Exactly one of budget, ratio, energy and rank is given.
        ratio: the same as a share.
        energy: the share of squared norm to keep, with as few parameters as possible.
        rank: components to keep of every module.
        uniform: one rank for all modules, for servers that know no `rank_pattern`; padded with zeros where a module has
            fewer components, and one alpha.
        moments: from `calibrate`: per module H = E[(A x)(A x)^T] `(r, r)`; then the norm is weighted by inputs.
    Returns:
        What was done to every module.
    Raises:
        ValueError: wrong arguments, or an adapter that cannot be compressed.
        OSError: it cannot be written.
    """
    target = Target(budget=budget, ratio=ratio, energy=energy, rank=rank, uniform=uniform)
    source = read_adapter(adapter)
    refuse_base_changes(source)
    worth = {name: _worth(source, name, moments) for name in source.modules}
    choice = choose(source.modules, worth, target)
    alike = not uniform or len({module.scale for module in source.modules.values()}) == 1
    updates = []
    for name in source.modules:
        if choice.pattern[name]:
            update = _update(source, name, choice.pattern[name], moments)
            updates.append(update if alike else _absorbed(update))
    with new_folder(Path(out)) as draft:
        carried = carried_tensors(source, updates)
        write_adapter(draft, source, updates, carried)
        done = _outcome(Path(out), source, choice, verify(draft, updates, carried), worth, moments)
        write_summary(draft, done.to_json())
    return done


def refuse_base_changes(source: Adapter) -> None:
    """Refuse adapters whose loading changes the base weights in a way that depends on the rank.

    Raises:
        ValueError: such an initialisation.
    """
    if source.config.changes_base:
        raise ValueError(
            f"{source.folder}: init_lora_weights must leave the base weights alone, got "
            f"{source.config.init_lora_weights!r}; save it with PEFT's path_initial_model_for_weight_conversion first"
        )


def _worth(source: Adapter, name: str, moments: Mapping[str, Tensor] | None) -> NDArray[np.float64]:
    """What every component of a module is worth, falling."""
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
    return Update(module, cut, module.scale).rounded()


def _absorbed(update: Update) -> Update:
    """The same update with scale 1."""
    root = abs(update.scale) ** 0.5
    A, B = (factor.double() for factor in update.factors)
    return Update(update.module, Factors(root * A, np.sign(update.scale) * root * B), 1.0).rounded()


def _outcome(
    folder: Path,
    source: Adapter,
    choice: RankChoice,
    written: Adapter,
    worth: Mapping[str, NDArray[np.float64]],
    moments: Mapping[str, Tensor] | None,
) -> Compression:
    cuts = {}
    for name, module in source.modules.items():
        factors, kept = source.factors(name), min(choice.pattern[name], module.rank)
        norm = float(abs(module.scale) * singular_values(*factors).norm())
        error = norm
        if name in written.modules:
            error = distance((module.scale, factors), (written.modules[name].scale, written.factors(name)))
        bound = None if moments else float(np.sqrt(worth[name][kept:].sum()))
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
        notes=tuple(notes(source)),
    )


def notes(source: Adapter) -> list[str]:
    """What a reader must know about a kind of adapter."""
    found = []
    if source.config.use_dora:
        found.append(
            "DoRA: the figures are for the low-rank part; the magnitudes are kept, and each row of the weight is still "
            "normalised to them after the low-rank part is added"
        )
    if source.config.changes_base:
        found.append(
            f"init_lora_weights is {source.config.init_lora_weights!r}: loading changes the base weights too, and the "
            "figures are for the factors as they are"
        )
    if source.config.lora_bias:
        found.append("lora_bias: the biases are kept, and no figure counts them")
    return found
