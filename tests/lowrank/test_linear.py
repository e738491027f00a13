"""The gated layer compared with its dense equation: values, gradients, masks, scales and merging."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale

KINDS = ["linear", "no bias", "conv1d"]
FAN_IN, FAN_OUT, MAX_RANK = 5, 7, 4


def base_of(kind: str) -> nn.Module:
    return Conv1D(FAN_OUT, FAN_IN) if kind == "conv1d" else nn.Linear(FAN_IN, FAN_OUT, bias=kind == "linear")


def random_layer(
    seed: int = 0, kind: str = "linear", policy: str = "unit", alpha: float = 1.5, dropout: float = 0.0
) -> LowRankLinear:
    """A layer with random tensors and a trained gate, in float64."""
    torch.manual_seed(seed)
    layer = LowRankLinear(base_of(kind), MAX_RANK, Scale(policy, alpha), dropout).double()  # type: ignore[arg-type]
    layer.open(MAX_RANK)
    for parameter in (layer.A, layer.B, layer.g):
        nn.init.normal_(parameter)
    layer.g.requires_grad_(True)
    return layer


def weight(layer: LowRankLinear) -> Tensor:
    """The base weight as `(out, in)`."""
    return layer.base.weight.T if layer.transposed else layer.base.weight


def dense(layer: LowRankLinear, x: Tensor) -> Tensor:
    """The equation, written out: y = W x + bias + s B diag(g * m) A x."""
    update = layer.s * layer.B @ torch.diag(layer.g * layer.m) @ layer.A
    bias = 0 if layer.base.bias is None else layer.base.bias
    return x @ (weight(layer) + update).T + bias


def masks() -> list[list[bool]]:
    return [[bool(code >> i & 1) for i in range(MAX_RANK)] for code in range(2**MAX_RANK)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_equation_for_every_mask(kind: str) -> None:
    layer, x = random_layer(kind=kind), torch.randn(2, 3, FAN_IN, dtype=torch.float64)
    assert layer.shape == (FAN_IN, FAN_OUT)
    for m in masks():
        layer.mask(torch.tensor(m))
        assert layer.rank == sum(m)
        torch.testing.assert_close(layer(x), dense(layer, x))
        torch.testing.assert_close(layer.update(), layer.s * layer.B @ torch.diag(layer.g * layer.m) @ layer.A)


@pytest.mark.parametrize(
    ("policy", "s"), [("init", 6.0 / 3), ("active", 6.0 / 2), ("rs", 6.0 / math.sqrt(3)), ("unit", 6.0)]
)
def test_scale_policies(policy: str, s: float) -> None:
    """Opened at 3 and masked to 2: only "active" follows the rank, and the layer uses s."""
    layer, x = random_layer(policy=policy, alpha=6.0), torch.randn(3, FAN_IN, dtype=torch.float64)
    layer.open(3)
    layer.keep(2)
    assert layer.s == pytest.approx(s)
    expected = layer.base(x) + s * (x @ layer.A[:2].T * layer.g[:2]) @ layer.B[:, :2].T
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("policy", ["init", "active", "rs", "unit"])
def test_rank_zero_is_the_base_map(policy: str) -> None:
    """Exactly, for a new layer, one opened at 0 and one masked to 0, without a division by zero."""
    layer, x = random_layer(policy=policy), torch.randn(3, FAN_IN, dtype=torch.float64)
    expected = layer.base(x)
    fresh = LowRankLinear(layer.base, MAX_RANK, Scale(policy, 1.0))  # type: ignore[arg-type]
    assert torch.equal(fresh(x), expected)
    layer.keep(0)
    assert torch.equal(layer(x), expected)
    layer.open(0)
    assert torch.equal(layer(x), expected)
    assert math.isfinite(layer.s)
    assert torch.equal(layer.update(), torch.zeros(FAN_OUT, FAN_IN, dtype=torch.float64))


@pytest.mark.parametrize("rank", [-1, MAX_RANK + 1])
def test_open_refuses_ranks_out_of_range(rank: int) -> None:
    with pytest.raises(ValueError, match=r"a layer's rank must be in 0\.\.4 \(model\.max_rank\), got"):
        random_layer().open(rank)


# ---------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str) -> None:
    """Finite differences for A, B, g and the input, with a mask that has a gap."""
    layer = random_layer(kind=kind)
    layer.mask(torch.tensor([True, False, True, True]))
    x = torch.randn(2, FAN_IN, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, A: Tensor, B: Tensor, g: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"A": A, "B": B, "g": g}, (x,))

    assert torch.autograd.gradcheck(function, (x, layer.A, layer.B, layer.g))


def test_masked_components_get_no_gradient() -> None:
    """Their gradient is exactly zero even if their weights are infinite; other components get a gradient."""
    layer = random_layer()
    m = torch.tensor([False, True, False, True])
    with torch.no_grad():
        layer.A[0], layer.B[:, 2], layer.g[2] = math.inf, math.nan, math.inf
    layer.mask(m)
    y = layer(torch.randn(3, FAN_IN, dtype=torch.float64))
    y.square().sum().backward()
    assert torch.isfinite(y).all()
    for grad in (layer.A.grad, layer.B.grad.T, layer.g.grad):
        assert torch.equal(grad[~m], torch.zeros_like(grad[~m]))
        assert (grad[m].reshape(2, -1).abs().sum(1) > 0).all()


def test_a_closed_gate_can_reopen() -> None:
    """g = 0: the component adds nothing, A and B get zero gradient, but the gate gets one."""
    layer, x = random_layer(), torch.randn(3, FAN_IN, dtype=torch.float64)
    with torch.no_grad():
        layer.g[1] = 0.0
    without = copy.deepcopy(layer)
    without.mask(torch.tensor([True, False, True, True]))
    torch.testing.assert_close(layer(x), without(x))
    layer(x).square().sum().backward()
    assert layer.A.grad[1].abs().max() == layer.B.grad[:, 1].abs().max() == 0
    assert layer.g.grad[1] != 0
    assert layer.A.grad[0].abs().max() > 0


@pytest.mark.parametrize("frozen", range(MAX_RANK))
def test_frozen_components_get_no_gradient(frozen: int) -> None:
    layer, x = random_layer(), torch.randn(3, FAN_IN, dtype=torch.float64)
    layer.keep(3)
    free = copy.deepcopy(layer)
    layer.frozen = frozen
    assert torch.equal(layer(x), free(x))
    layer(x).square().sum().backward()
    free(x).square().sum().backward()
    for mine, other in ((layer.A.grad, free.A.grad), (layer.B.grad.T, free.B.grad.T), (layer.g.grad, free.g.grad)):
        expected = other.clone()
        expected[:frozen] = 0
        assert torch.equal(mine if mine is not None else torch.zeros_like(other), expected)


def test_the_base_is_frozen() -> None:
    layer = random_layer()
    layer(torch.randn(2, FAN_IN, dtype=torch.float64)).sum().backward()
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == {"A", "B", "g"}
    assert all(p.grad is None for p in layer.base.parameters())
    assert not LowRankLinear(nn.Linear(2, 2), 1, Scale("unit", 1.0)).g.requires_grad, "an allocator enables the gate"


# ------------------------------------------------------------------------------------------------ same map, rewritten


@given(st.permutations(range(MAX_RANK)), st.lists(st.booleans(), min_size=MAX_RANK, max_size=MAX_RANK))
def test_permute_does_not_change_the_map(order: list[int], m: list[bool]) -> None:
    layer, x = random_layer(), torch.randn(3, FAN_IN, dtype=torch.float64)
    layer.mask(torch.tensor(m))
    expected, row = layer(x), layer.A[order[0]].clone()
    layer.permute(torch.tensor(order))
    torch.testing.assert_close(layer(x), expected)
    assert torch.equal(layer.A[0], row)
    assert layer.m.tolist() == [m[i] for i in order]
    assert layer.changed


def test_renew_opens_one_component() -> None:
    """The others stay as they are, and the optimiser is told which one is new."""
    layer = random_layer()
    layer.mask(torch.tensor([True, False, True] + [False] * (MAX_RANK - 3)))
    before, A = layer.update(), layer.A.clone()
    a, b = torch.randn(FAN_IN, dtype=torch.float64), torch.randn(layer.shape.fan_out, dtype=torch.float64)
    layer.renew(1, a, b, 0.5)
    torch.testing.assert_close(layer.update(), before + layer.s * 0.5 * torch.outer(b, a))
    assert torch.equal(layer.A[2:], A[2:])
    assert layer.rank == 3
    assert layer.renewed == [1]
    assert not layer.changed


def test_replace_puts_new_components_first() -> None:
    """A layer with replaced factors of the same product computes the same; the rest is zero, gates are one."""
    layer, x = random_layer(), torch.randn(3, FAN_IN, dtype=torch.float64)
    layer.keep(2)
    expected = layer(x)
    A, B, g = layer.active()
    layer.replace(A.flip(0), (B * g).flip(1))
    torch.testing.assert_close(layer(x), expected)
    assert layer.A[2:].abs().sum() == layer.B[:, 2:].abs().sum() == 0
    assert torch.equal(layer.g, torch.ones_like(layer.g))
    assert layer.changed


def test_replace_by_the_layers_own_factors() -> None:
    """Views of its own tensors are handled."""
    layer, x = random_layer(), torch.randn(3, FAN_IN, dtype=torch.float64)
    nn.init.ones_(layer.g)
    expected = layer(x)
    layer.replace(layer.A, layer.B)
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_merge_and_unmerge(kind: str) -> None:
    """After merging, the base map computes the same; unmerging restores every bit; both can be repeated."""
    layer = random_layer(kind=kind).float()
    layer.mask(torch.tensor([True, False, True, False]))
    x = torch.randn(3, FAN_IN)
    before, expected = layer.base.weight.clone(), layer(x)
    for _ in range(2):
        layer.merge()
        layer.merge()
        assert not torch.equal(layer.base.weight, before)
        torch.testing.assert_close(layer(x), expected)
        torch.testing.assert_close(layer.base(x), expected)
        layer.unmerge()
        layer.unmerge()
        assert torch.equal(layer.base.weight, before)
        assert torch.equal(layer(x), expected)


# ------------------------------------------------------------------------------------------------- as a torch module


def test_saved_and_loaded() -> None:
    """A state dict contains the mask, and a layer that loads it uses it."""
    layer, other = random_layer(1), random_layer(2)
    layer.mask(torch.tensor([False, True, False, True]))
    other.load_state_dict(layer.state_dict())
    x = torch.randn(3, FAN_IN, dtype=torch.float64)
    assert other.rank == 2
    assert torch.equal(other(x), layer(x))


def test_copied() -> None:
    layer = random_layer()
    layer.keep(2)
    twin = copy.deepcopy(layer)
    twin.keep(3)
    assert (layer.rank, twin.rank) == (2, 3)
    assert layer.m.sum() == 2


def test_training_mode_is_the_bases() -> None:
    """In a model in evaluation mode, dropout of a new adapter is off."""
    base = nn.Linear(2, 2).eval()
    assert not LowRankLinear(base, 1, Scale("unit", 1.0), dropout=0.5).dropout.training
    assert LowRankLinear(nn.Linear(2, 2), 1, Scale("unit", 1.0), dropout=0.5).dropout.training


def test_dropout_is_on_the_adapters_input_only() -> None:
    """With probability near 1 only the base map remains; in evaluation mode dropout is off."""
    layer, x = random_layer(dropout=0.999999), torch.randn(3, FAN_IN, dtype=torch.float64)
    torch.testing.assert_close(layer(x), layer.base(x))
    torch.testing.assert_close(layer.eval()(x), dense(layer, x))


def test_autocast() -> None:
    """Under bf16 autocast results equal those in fp32 up to bf16's precision, and gradients are fp32."""
    layer = random_layer().float()
    layer.keep(3)
    x = torch.randn(64, FAN_IN)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    torch.testing.assert_close(y.float(), layer(x), atol=0.2, rtol=0.05)
    y.float().square().mean().backward()
    assert layer.A.grad.dtype == layer.B.grad.dtype == layer.g.grad.dtype == torch.float32
    assert all(torch.isfinite(p.grad).all() for p in (layer.A, layer.B, layer.g))


def test_on_the_meta_device() -> None:
    """A preflight can start an allocator on layers without weights."""
    with torch.device("meta"):
        layer = LowRankLinear(nn.Linear(FAN_IN, FAN_OUT), MAX_RANK, Scale("init", 1.0))
        layer.open(2)
    assert (layer.rank, layer.shape) == (2, (FAN_IN, FAN_OUT))
    assert layer.A.is_meta
