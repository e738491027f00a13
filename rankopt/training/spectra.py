"""The singular values of trained updates, for the trial's record."""

from __future__ import annotations

import torch

from rankopt.importance.double import double
from rankopt.importance.spectral import one_thread, singular_values
from rankopt.lowrank.layers import Layers

DIGITS = 4
"""Significant digits that are stored: a record has a number per component."""


@one_thread()
@torch.no_grad()
def update_spectra(layers: Layers) -> dict[str, tuple[float, ...]]:
    """The singular values of every layer's active update `s B diag(g) A`, largest first.

    Args:
        layers: with the pattern of interest applied.
    Returns:
        Per layer as many values as its rank, or as its smaller dimension if that is less.
    Example:
        >>> from torch import nn
        >>> from rankopt.lowrank.linear import LowRankLinear
        >>> from rankopt.lowrank.scale import Scale
        >>> layer = LowRankLinear(nn.Linear(3, 2), 2, Scale("unit", 1.0))
        >>> layer.keep(1)
        >>> _ = layer.A.data.fill_(1.0), layer.B.data.fill_(2.0), layer.g.data.fill_(1.0)
        >>> update_spectra({"q": layer})
        {'q': (4.899,)}
    """
    found = {}
    for name, layer in layers.items():
        A, B, g = (double(part) for part in layer.active())
        values = singular_values(A, layer.s * B * g).tolist() if len(A) else []
        found[name] = tuple(float(f"{value:.{DIGITS}g}") for value in values)
    return found
