"""The fused map equals the plain map in values and gradients, under autocast, checkpointing and compilation."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rankopt.lowrank.gated import gated_linear
from rankopt.lowrank.inject import inject, linear_names
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale

TOKENS = [64, 2]  # more and fewer than the widths 8 and 6, which decides how it is computed without gradients


def plain(x: Tensor, W: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, g: Tensor, s: float) -> Tensor:
    """The equation, differentiated by torch."""
    return functional.linear(x, W, bias) + s * functional.linear(functional.linear(x, A) * g, B)


def factors(tokens: int, rank: int = 3, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """x `(tokens, 8)`, W `(6, 8)`, bias, A, B, g; W and the bias are frozen."""
    generator = torch.Generator().manual_seed(tokens)
    shapes = [(tokens, 8), (6, 8), (6,), (rank, 8), (6, rank), (rank,)]
    drawn = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    return [t if i in (1, 2) else t.requires_grad_() for i, t in enumerate(drawn)]


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("rank", [1, 3])
def test_gradcheck(tokens: int, rank: int) -> None:
    """The derivatives equal numerical ones in double precision."""
    x, W, bias, A, B, g = factors(tokens, rank)
    assert torch.autograd.gradcheck(lambda x, A, B, g: gated_linear(x, W, bias, A, B, g, 0.7), (x, A, B, g))


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("strides", ["rows", "columns"])
def test_equals_the_plain_map(tokens: int, bias: bool, strides: str) -> None:
    """Values and gradients agree up to rounding, with leading dimensions, without bias, and for a weight that
    is stored transposed like GPT-2's."""
    x, W, b, A, B, g = factors(tokens, dtype=torch.float32)
    W = W.T.contiguous().T if strides == "columns" else W
    x = x.detach().reshape(1, *x.shape).requires_grad_()
    seed = torch.randn(1, tokens, 6, generator=torch.Generator().manual_seed(1))
    results = []
    for form in (gated_linear, plain):
        y = form(x, W, b if bias else None, A, B, g, 1.3)
        with torch.no_grad():
            alone = form(x, W, b if bias else None, A, B, g, 1.3)
        results.append((y, alone, *torch.autograd.grad(y, (x, A, B, g), seed)))
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", TOKENS)
def test_only_needed_gradients(tokens: int) -> None:
    """Inputs and factors that need no gradient get none."""
    x, W, bias, A, B, g = factors(tokens)
    y = gated_linear(x.detach(), W, bias, A, B.detach(), g.detach(), 1.0)
    y.sum().backward()
    assert A.grad is not None
    assert x.grad is None
    assert B.grad is None
    assert g.grad is None


@pytest.mark.parametrize("tokens", TOKENS)
def test_saved_tensors(tokens: int) -> None:
    """Backward keeps only x and A x beside the parameters, nothing of the size of W or of the output."""
    x, W, bias, A, B, g = factors(tokens)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        gated_linear(x, W, bias, A, B, g, 1.0)
    own = {t.data_ptr() for t in (x, W, A, B, g)}
    (product,) = [t for t in kept if t.data_ptr() not in own]
    torch.testing.assert_close(product, A @ x.T)


@pytest.mark.parametrize("tokens", TOKENS)
def test_second_derivatives_are_refused(tokens: int) -> None:
    """An error, not a wrong result."""
    x, W, bias, A, B, g = factors(tokens)
    (first,) = torch.autograd.grad(gated_linear(x, W, bias, A, B, g, 1.0).pow(2).sum(), A, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("tokens", TOKENS)
def test_autocast(tokens: int) -> None:
    """In bfloat16 the error is at most twice that of the plain map, gradients of parameters are float32, and the
    rounded weight follows the base weight."""
    exact = factors(tokens, dtype=torch.float32)
    x, *_, A, B, g = exact
    layer = LowRankLinear(nn.Linear(8, 6), 3, Scale("unit", 0.5))
    layer.open(3)
    layer.g.requires_grad_()
    with torch.no_grad():
        for mine, drawn in zip((layer.base.weight, layer.base.bias, layer.A, layer.B, layer.g), exact[1:], strict=True):
            mine.copy_(drawn)
    truth = plain(*exact, 0.5)
    wanted = torch.autograd.grad(truth.sum(), (A, B, g))
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = layer(x), plain(*exact, 0.5)
    assert ours.dtype == torch.bfloat16
    assert (ours - truth).norm() <= 2 * (theirs - truth).norm()
    for ours_, theirs_, true in zip(
        torch.autograd.grad(ours.sum(), (layer.A, layer.B, layer.g)),
        torch.autograd.grad(theirs.sum(), (A, B, g)),
        wanted,
        strict=True,
    ):
        assert ours_.dtype == torch.float32
        assert (ours_ - true).norm() <= 2 * (theirs_ - true).norm() + 0.02 * true.norm()
    layer.merge()
    with torch.autocast("cpu", torch.bfloat16):
        assert (layer(x) - truth).norm() <= 2 * (theirs - truth).norm()
        layer.unmerge()
        assert torch.equal(layer(x), ours)


def test_a_weight_is_rounded_once() -> None:
    """Once for all layers with this weight, and again after it changes, also in a compiled graph."""
    base = nn.Linear(8, 6)
    one, two = (LowRankLinear(base, 3, Scale("unit", 0.5)) for _ in range(2))
    assert one.rounded(torch.bfloat16) is two.rounded(torch.bfloat16)
    assert one.rounded(torch.float16).dtype == torch.float16
    with torch.no_grad():
        base.weight.mul_(2.0)
    assert torch.equal(one.rounded(torch.bfloat16), base.weight.bfloat16())
    one.open(2)
    compiled, x = torch.compile(one, backend="aot_eager", fullgraph=True), torch.randn(2, 8)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(compiled(x), one(x))
        one.load_state_dict({key: torch.randn_like(value.float()) for key, value in one.state_dict().items()})


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing(use_reentrant: bool) -> None:
    """Recomputed activations give bit-identical gradients."""
    x, W, bias, A, B, g = factors(64, dtype=torch.float32)

    def block(x: Tensor) -> Tensor:
        return gated_linear(x, W, bias, A, B, g, 1.0).relu()

    (direct,) = torch.autograd.grad(block(x).sum(), A)
    block_again = checkpoint(block, x, use_reentrant=use_reentrant).sum()
    block_again.backward()
    assert torch.equal(A.grad, direct)


@pytest.mark.parametrize("tokens", TOKENS)
def test_compile(tokens: int) -> None:
    """Forward and backward are traced without a graph break."""
    layer = LowRankLinear(nn.Linear(8, 6), 4, Scale("unit", 2.0))
    layer.open(3)
    nn.init.normal_(layer.A)
    nn.init.normal_(layer.B)
    x = torch.randn(tokens, 8)
    direct = layer(x)
    (wanted,) = torch.autograd.grad(direct.sum(), layer.A)
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), direct)
    compiled(x).sum().backward()
    torch.testing.assert_close(layer.A.grad, wanted)


def test_in_a_model(family: str, build: Any) -> None:
    """Logits and gradients of a whole model equal those with the plain map, for every family."""
    model = build(family)
    names = linear_names(model, ("classifier", "score", "pooler"))
    layers = inject(model, names, 3, Scale("unit", 1.0))
    for layer in layers.values():
        layer.open(2)
        nn.init.normal_(layer.A, std=0.1)
        nn.init.normal_(layer.B, std=0.1)
    ids = torch.randint(2, 50, (5, 8), generator=torch.Generator().manual_seed(3))
    twin = copy.deepcopy(model)
    for name in names:
        layer = twin.get_submodule(name)

        def slow(x: Tensor, layer: LowRankLinear = layer) -> Tensor:
            A, B, g = layer.active()
            return layer.base(x) + layer.s * functional.linear(functional.linear(x, A) * g, B)

        layer.forward = slow
    for net in (model, twin):
        net(input_ids=ids).logits.square().sum().backward()
    torch.testing.assert_close(model(input_ids=ids).logits, twin(input_ids=ids).logits)
    for name in names:
        mine, other = model.get_submodule(name), twin.get_submodule(name)
        torch.testing.assert_close(mine.A.grad, other.A.grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine.B.grad, other.B.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("autocast", [False, True])
def test_on_a_gpu(tokens: int, autocast: bool) -> None:
    """The same values and gradients as on a CPU, up to rounding."""
    values = factors(tokens, dtype=torch.float32)
    moved = [t.detach().cuda().requires_grad_(t.requires_grad) for t in values]
    x = moved[0].bfloat16() if autocast else moved[0]
    ours, theirs = gated_linear(x, *moved[1:], 1.0), plain(*values, 1.0)
    ours.float().square().sum().backward()
    theirs.square().sum().backward()
    for mine, other in ((ours, theirs), *((a.grad, b.grad) for a, b in zip(moved, values, strict=True))):
        if other is not None:
            gap = (mine.cpu().float() - other).norm() / other.norm()
            assert gap < (3e-2 if autocast else 1e-5)


@pytest.mark.parametrize("shape", [(6,), (0, 3, 6), (2, 6), (2, 3, 6)])
def test_input_shapes(shape: tuple[int, ...]) -> None:
    """A single vector, no tokens (an idle expert), and a result that is changed in place."""
    layer = LowRankLinear(nn.Linear(6, 4), 2, Scale("unit", 1.0))
    layer.open(2)
    with torch.no_grad():
        layer.B.normal_()
    x = torch.randn(shape, requires_grad=True)
    y = layer(x)
    y += 1
    expected = functional.linear(x, layer.weight + layer.update(), layer.bias) + 1
    torch.testing.assert_close(y, expected)
    (ours,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(ours, torch.autograd.grad(expected.sum(), x)[0])
