"""The hard-concrete distribution: its derivative, its mean gate and the probability of an open gate."""

from __future__ import annotations

import torch

from rankopt.allocators.shared.hard_concrete import mean_gate, open_probability, sample, slope


def test_slope_is_the_derivative() -> None:
    generator = torch.Generator().manual_seed(0)
    location = torch.randn(1000, generator=generator).mul(3).requires_grad_(True)
    noise = torch.rand(1000, generator=generator).clamp(1e-6, 1 - 1e-6)
    sample(location, noise).sum().backward()
    torch.testing.assert_close(slope(location.detach(), noise), location.grad)


def test_the_share_of_open_gates_is_the_probability() -> None:
    """And both ends have mass of their own: gates of exactly 0 and of exactly 1."""
    noise = torch.rand(200_000, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
    for location in (-2.0, 0.0, 1.5):
        gates = sample(torch.full_like(noise, location), noise)
        assert abs(float((gates > 0).float().mean()) - float(open_probability(torch.tensor(location)))) < 5e-3
        assert bool((gates == 0).any())
        assert bool((gates == 1).any())
        assert bool(((gates >= 0) & (gates <= 1)).all())


def test_without_noise_the_gate_is_the_median_draw() -> None:
    """u = 1/2 contributes nothing to the logit but the temperature, which the mean gate leaves out."""
    location = torch.linspace(-4, 4, 9)
    half = torch.full_like(location, 0.5)
    torch.testing.assert_close(sample(location * 2 / 3, half), mean_gate(location))
