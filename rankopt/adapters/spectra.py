"""The singular values of an adapter's updates, and the best ranks for a given size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rankopt.adapters.adapter import Adapter, read_adapter
from rankopt.adapters.choose import RankChoice, Target, choose
from rankopt.adapters.module import Module
from rankopt.analysis.spectra import effective_rank
from rankopt.importance.spectral import energy, one_thread, singular_values, stable_rank

Floats = NDArray[np.float64]

SHARES = (0.90, 0.95, 0.99)
"""Shares of energy for which the smallest pattern is reported."""

RATIOS = (0.75, 0.5, 0.25, 0.1)
"""Shares of the parameters for which the best pattern is reported."""


@dataclass(frozen=True, eq=False)
class ModuleSpectrum:
    """One module and the singular values of its update `s B A`.

    Attributes:
        module: name, shape, rank, scale.
        S: (min(r, in, out),) singular values, decreasing.
    """

    module: Module
    S: Floats

    @property
    def energy(self) -> Floats:
        """(len(S),) the share of the update's squared Frobenius norm in the first k directions, k = 1, 2, ..."""
        return energy(torch.from_numpy(self.S)).numpy()

    @property
    def norm(self) -> float:
        """The update's Frobenius norm."""
        return float(np.sqrt(np.square(self.S).sum()))

    @property
    def stable_rank(self) -> float:
        """`|W|_F^2 / |W|_2^2`."""
        return stable_rank(torch.from_numpy(self.S))

    @property
    def effective_rank(self) -> float:
        """The exponential of the entropy of the singular values."""
        return effective_rank(self.S.tolist())

    def energy_at(self, ranks: tuple[int, ...]) -> dict[int, float]:
        """Rank -> share of energy kept at that rank."""
        shares = self.energy
        return {rank: float(shares[min(rank, len(shares)) - 1]) if len(shares) else 0.0 for rank in ranks}


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The spectra of an adapter's modules.

    Attributes:
        adapter: the adapter.
        modules: by full name, in the model's order.
    """

    adapter: Adapter
    modules: Mapping[str, ModuleSpectrum]

    @property
    def total(self) -> float:
        """The sum of the squared Frobenius norms of all updates."""
        return float(sum(np.square(one.S).sum() for one in self.modules.values()))

    @property
    def ranks(self) -> tuple[int, ...]:
        """1, 2, 4, ... up to the largest rank."""
        largest = max(one.module.rank for one in self.modules.values())
        return tuple(2**power for power in range(max(1, largest).bit_length()))

    def choose(self, target: Target) -> RankChoice:
        """The best ranks for a target."""
        gains = {name: np.square(one.S) for name, one in self.modules.items()}
        return choose(self.adapter.modules, gains, target)

    def possible(self, target: Target) -> RankChoice | None:
        """The best ranks for a target, or None if the target is too small."""
        try:
            return self.choose(target)
        except ValueError:
            return None

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        config = self.adapter.config
        choices = {f"{ratio:g}": self.possible(Target(ratio=ratio)) for ratio in RATIOS}
        needed = {f"{share:g}": self.choose(Target(energy=share)) for share in SHARES}
        return {
            "adapter": str(self.adapter.folder),
            "kind": config.kind,
            "base_model": config.base_model_name_or_path,
            "repairs": list(self.adapter.repairs),
            "parameters": self.adapter.parameters,
            "energy": self.total,
            "modules": [
                {
                    "name": name,
                    "kind": one.module.kind,
                    "shape": {"fan_in": one.module.shape.fan_in, "fan_out": one.module.shape.fan_out},
                    "rank": one.module.rank,
                    "scale": one.module.scale,
                    "parameters": one.module.parameters,
                    "norm": one.norm,
                    "stable_rank": one.stable_rank,
                    "effective_rank": one.effective_rank,
                    "energy": {str(rank): share for rank, share in one.energy_at(self.ranks).items()},
                    "singular_values": one.S.tolist(),
                }
                for name, one in self.modules.items()
            ],
            "parameters_for_energy": {share: choice.parameters for share, choice in needed.items()},
            "patterns": {
                name: {"parameters": choice.parameters, "energy": choice.energy, "ranks": dict(choice.pattern)}
                for name, choice in choices.items()
                if choice
            },
        }


@one_thread()
def spectrum(adapter: str | Path | Adapter) -> Spectrum:
    """Compute the singular values of every module's update, one module at a time.

        s B A = U diag(S) V^T      from two thin QRs and one r x r decomposition, in float64

    This takes O((in + out) r^2) operations per module and the memory of one module; the update is never formed.

    Args:
        adapter: a folder, a hub id (`user/repository`), or an adapter that was already read.
    Returns:
        Per module: S `(r,)` in descending order, in the scale of the update; the same for the whole adapter.
    Raises:
        ValueError: the adapter is missing, corrupt or unsupported.
        OSError: the hub cannot be reached.
    Example:
        >>> import rankopt
        >>> rankopt.spectrum("no/such/folder")
        Traceback (most recent call last):
        ValueError: an adapter must be an existing folder or a hub id (user/repository), got 'no/such/folder'
    """
    read = read_adapter(adapter)
    found = {}
    for name, module in read.modules.items():
        A, B = read.factors(name)
        found[name] = ModuleSpectrum(module, (abs(module.scale) * singular_values(A, B)).numpy())
    return Spectrum(read, found)
