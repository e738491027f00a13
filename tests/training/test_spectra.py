"""Singular values of trained updates, as a trial records them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rankopt.lowrank.inject import inject
from rankopt.lowrank.scale import Scale
from rankopt.training.spectra import DIGITS, update_spectra


def test_they_are_those_of_the_dense_update() -> None:
    """Of the active components alone; a layer of rank 0 has none."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    layers = inject(model, ["0", "1"], 3, Scale("unit", 2.0))
    for layer in layers.values():
        layer.open(3)
        for factor in (layer.A, layer.B, layer.g):
            factor.data.normal_()
    layers["0"].mask(torch.tensor([True, False, True]))
    layers["1"].keep(0)
    found = update_spectra(layers)
    dense = torch.linalg.svdvals(layers["0"].update())[:2].tolist()
    assert found["0"] == pytest.approx(dense, rel=10.0 ** (1 - DIGITS))
    assert found["1"] == ()
