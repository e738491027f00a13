"""Spectral truncation: the cut against Eckart and Young, and recovery."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rankopt.allocators.shared.reorder import reorder
from rankopt.allocators.shared.truncation import spectral_pattern
from rankopt.allocators.spectral import Spectral
from rankopt.core.budget import Budget
from rankopt.core.pattern import Shape
from rankopt.lowrank.layers import apply_pattern, pattern_of, shapes_of
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale

# ----------------------------------------------------------------------------------------------------------- the layer


def random_layer(
    seed: int, fan_in: int = 6, fan_out: int = 5, max_rank: int = 4, policy: str = "init"
) -> LowRankLinear:
    torch.manual_seed(seed)
    layer = LowRankLinear(torch.nn.Linear(fan_in, fan_out), max_rank, Scale(policy, 3.0))  # type: ignore[arg-type]
    layer.open(max_rank)
    for parameter in (layer.A, layer.B, layer.g):
        torch.nn.init.normal_(parameter)
    return layer


@pytest.mark.parametrize("policy", ["init", "rs", "unit"])
@pytest.mark.parametrize("mask", [[1, 1, 1, 1], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
def test_reorder_keeps_the_map(policy: str, mask: list[int]) -> None:
    """To 1e-5, with gates absorbed, and whatever was masked stays out."""
    layer = random_layer(1, policy=policy)
    layer.mask(torch.tensor(mask, dtype=torch.bool))
    before, dense = layer.update(), torch.linalg.svdvals(layer.update())
    S = reorder(layer)
    torch.testing.assert_close(layer.update(), before, atol=1e-5, rtol=1e-5)
    assert layer.rank == sum(mask) == len(S)
    torch.testing.assert_close(S, dense[: len(S)], atol=1e-5, rtol=1e-5)
    assert (layer.active()[2] == 1).all()
    assert layer.changed or not any(mask)


def test_reordered_prefixes_are_the_best_approximations() -> None:
    """Eckart and Young: keeping k components is the best rank-k map; its error is the tail of S, for every k."""
    layer = random_layer(2)
    full = layer.update()
    S = reorder(layer)
    for k in range(5):
        layer.keep(k)
        error = torch.linalg.norm(full - layer.update())
        torch.testing.assert_close(error, S[k:].square().sum().sqrt(), atol=1e-5, rtol=1e-4)


def test_the_singular_value_is_shared_equally() -> None:
    """Row i of A and column i of B have the same norm, so neither is favoured by weight decay or the step size."""
    layer = random_layer(3)
    S = reorder(layer)
    torch.testing.assert_close(layer.A.norm(dim=1), (S / layer.s).sqrt(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer.B.norm(dim=0), (S / layer.s).sqrt(), atol=1e-5, rtol=1e-5)


def test_more_components_than_dimensions() -> None:
    """r > min(in, out): as many singular directions as there can be, the same map."""
    layer = random_layer(4, fan_in=3, fan_out=2, max_rank=6)
    before = layer.update()
    assert len(reorder(layer)) == layer.rank == 2
    torch.testing.assert_close(layer.update(), before, atol=1e-5, rtol=1e-5)


def test_an_untrained_layer() -> None:
    """B = 0: all singular values zero, still a zero map, nothing NaN."""
    layer = random_layer(5)
    torch.nn.init.zeros_(layer.B)
    assert reorder(layer).tolist() == [0.0] * 4
    assert torch.equal(layer.update(), torch.zeros(5, 6))
    assert torch.isfinite(layer.A).all()


# ------------------------------------------------------------------------------------------------------------- training


def test_the_cut_is_a_truncated_decomposition(lab: Any) -> None:
    """At the cut every layer's update becomes its own best rank-r_k approximation, r_k from all spectra together."""
    training = lab.Training(Spectral(recovery=4.0), Budget(mean_rank=1)).advance(7)
    training.allocator = training.allocator.model_copy()
    before = {name: layer.update() for name, layer in training.layers.items()}
    assert set(pattern_of(training.layers).values()) == {4}
    training.allocator.after_step(training.state, training.layers, 8)
    values = sorted((float(s) for d in before.values() for s in torch.linalg.svdvals(d)[:4]), reverse=True)
    threshold = (values[4] + values[5]) / 2
    for name, layer in training.layers.items():
        U, S, Vh = torch.linalg.svd(before[name])
        k = int((threshold < S).sum())
        assert layer.rank == k
        torch.testing.assert_close(layer.update(), (U[:, :k] * S[:k]) @ Vh[:k], atol=1e-5, rtol=1e-4)
    assert pattern_of(training.layers).total == 5


@pytest.mark.parametrize("rule", ["global", "cost", "energy"])
@pytest.mark.parametrize("unit", ["ranks", "parameters"])
def test_recovery_trains_what_was_kept(rule: Any, unit: Any, lab: Any) -> None:
    """After the cut, kept components move, masked ones do not, and the trial's own pattern is the one of the cut."""
    training = lab.Training(Spectral(rule=rule, recovery=4.0), Budget(mean_rank=2, unit=unit)).advance(8)
    cut, at_cut = pattern_of(training.layers), training.weights()
    assert cut.total < 20
    training.advance()
    now = training.weights()
    for name, layer in training.layers.items():
        moved = ((now[f"{name}.A"] - at_cut[f"{name}.A"]).abs().sum(1) > 0).tolist()
        assert moved == layer.m.tolist() == [i < cut[name] for i in range(4)]
    assert [pattern.total for pattern in training.trace] == [20] * 8 + [cut.total] * 5
    assert training.finish()[0] == cut


def test_recovery_starts_adam_anew(lab: Any) -> None:
    """Adam's moments belong to components that no longer exist, so it starts anew after the cut."""
    training = lab.Training(Spectral(recovery=4.0), Budget(mean_rank=2)).advance(8)
    for layer in training.layers.values():
        assert not training.optimizer.state.get(layer.A)
        assert not layer.changed
    training.advance()
    for layer in training.layers.values():
        assert training.optimizer.state[layer.A]["step"] == 4


def test_without_recovery_it_cuts_at_the_end(lab: Any) -> None:
    training = lab.Training(Spectral(initial_rank=3), Budget(mean_rank=2)).advance()
    assert [pattern.total for pattern in training.trace] == [15] * 12 + [10]
    assert [pattern.total for pattern in training.finish()] == [10, 5, 2]


@pytest.mark.parametrize("rule", ["global", "cost", "energy"])
def test_smaller_patterns_are_cuts_of_the_first(rule: Any) -> None:
    """Even where half of a parameter budget would, on its own, give a layer more than the whole budget does."""
    shapes = {"wide": Shape(50, 50), "narrow": Shape(15, 15)}
    spectra = {"wide": torch.tensor([100.0, 90.0]), "narrow": torch.tensor([3.0, 2.0])}
    whole = spectral_pattern(spectra, Budget(parameters=150), shapes, "global")
    half = spectral_pattern(spectra, Budget(parameters=75), shapes, "global")
    assert (whole["narrow"], half["narrow"]) == (1, 2), "the case is one"
    layers = {name: LowRankLinear(torch.nn.Linear(*shape), 2, Scale("unit", 1.0)) for name, shape in shapes.items()}
    allocator = Spectral(rule=rule)
    state = allocator.start(layers, Budget(parameters=150), 1, 0)
    with torch.no_grad():
        for name, layer in layers.items():
            layer.A.copy_(torch.eye(*layer.A.shape))
            layer.B.copy_((torch.eye(*layer.B.shape)) * spectra[name])
    allocator.after_step(state, layers, 1)
    first, *others = allocator.finish(state, layers)
    assert all(other[name] <= first[name] for other in others for name in first)
    assert pattern_of(layers) == first


def test_finish_may_be_followed_by_any_of_its_patterns(lab: Any) -> None:
    """Every pattern of the list is a prefix of what the layers hold: applying it in any order is enough."""
    training = lab.Training(Spectral(), Budget(mean_rank=2)).advance()
    found = training.finish()
    answers = []
    for order in (found, found[::-1]):
        for pattern in order:
            apply_pattern(training.layers, pattern)
            answers.append(lab.logits(training.model))
    for one, other in zip(answers[:3], answers[:2:-1], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"initial_rank": 5}, r"allocator\.initial_rank must be at most model\.max_rank 4, got 5"),
        ({"recovery": 12.0}, r"allocator\.recovery must be fewer than the trial's 12 steps, got 12"),
    ],
)
def test_what_cannot_be_is_refused(options: Any, words: str, lab: Any) -> None:
    with pytest.raises(ValueError, match=words):
        lab.Training(Spectral(**options), Budget(mean_rank=1))


def test_a_zero_budget_trains_nothing(lab: Any) -> None:
    training = lab.Training(Spectral(), Budget(ranks=0)).advance()
    assert {pattern.total for pattern in training.trace} == {0}
    assert [pattern.total for pattern in training.finish()] == [0]
    assert shapes_of(training.layers)


@pytest.mark.parametrize("budget", [Budget(mean_rank=0.5), Budget(ranks=4), Budget(mean_rank=0.9, unit="parameters")])
def test_energy_below_one_component_per_layer_is_refused(budget: Budget, lab: Any) -> None:
    """The rule keeps a component of every layer, so it would keep nothing at all; other rules keep what fits."""
    with pytest.raises(
        ValueError, match=r"allocator\.rule 'energy' needs a budget of at least .* one component per layer"
    ):
        lab.Training(Spectral(rule="energy"), budget)
    kept = lab.Training(Spectral(rule="global"), budget).advance().finish()[0]
    assert kept.total > 0


def test_energy_has_no_empty_cuts(lab: Any) -> None:
    """Half and a quarter of the budget are scored only where they pay for one component per layer."""
    training = lab.Training(Spectral(rule="energy"), Budget(ranks=10)).advance()
    assert all(pattern.total >= 5 for pattern in training.finish())


def test_calibration_weights_the_cut_by_the_inputs(lab: Any) -> None:
    """The spectra are those of the layers' outputs over the last steps before the cut, and the cut maps stay the same
    but for what is cut."""
    training = lab.Training(Spectral(calibration=1, rule="uniform"), Budget(mean_rank=2)).advance(11)
    inputs: dict[str, torch.Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda _, args, y, name=name: inputs.update({name: args[0].detach()}))
        for name, layer in training.layers.items()
    ]
    A: dict[str, torch.Tensor] = {name: layer.A.detach().clone() for name, layer in training.layers.items()}
    B: dict[str, torch.Tensor] = {}
    lab.after_optimizer(
        training, lambda: B.update({n: it.s * it.B.detach().clone() for n, it in training.layers.items()})
    )
    training.advance()
    for hook in hooks:
        hook.remove()
    for name, S in training.state["spectra"].items():
        rows = inputs[name].reshape(-1, inputs[name].shape[-1]) @ A[name].T
        expected = torch.linalg.svdvals(B[name] @ rows.T / len(rows) ** 0.5)
        torch.testing.assert_close(S, expected[: len(S)], atol=1e-4, rtol=1e-3)
