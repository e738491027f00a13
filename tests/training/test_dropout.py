"""Lean dropout is dropout: the same distribution, its gradient the same map, torch's attention where nothing drops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_config
from torch import nn
from transformers import AutoModelForSequenceClassification

from rankopt.training.dropout import ATTENTION, LeanDropout, attention, dropout, dropped_product, use_lean_dropout


@given(p=st.floats(0, 1), size=st.integers(0, 70))
@settings(max_examples=60, deadline=None)
def test_entries_are_dropped_or_scaled(p: float, size: int) -> None:
    """Each is zero or x / (1 - p), p rounded to 16 bits, whatever the size; the gradient is the same map."""
    x = torch.full((size,), 3.0, requires_grad=True)
    y = dropout(x, p)
    kept = round((1 - p) * 65536)
    scale = 65536 / kept if kept else 0.0
    assert all(v == 0 or math.isclose(v, 3 * scale, rel_tol=1e-6) for v in y.tolist())
    if size:
        (slope,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(slope * 3, y.detach())


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_rate(p: float) -> None:
    """The fraction dropped lies within five standard errors, in each of the four places of a word, and neighbours drop
    independently."""
    torch.manual_seed(0)
    n = 400_000
    gone = (dropout(torch.ones(n), p) == 0).double()
    error = 5 * math.sqrt(p * (1 - p) / (n / 4)) + 2**-16
    for place in range(4):
        assert abs(gone[place::4].mean() - p) <= error
    for lag in (1, 2, 3, 4):
        together = (gone[lag:] * gone[:-lag]).mean()
        assert abs(together - p * p) <= 5 * math.sqrt(max(p * p * (1 - p * p), 0) / n) * 2 + 2**-15


def test_the_generator_is_torchs() -> None:
    """The same seed, the same mask: a resumed trial depends on it."""
    x = torch.ones(1000)
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropout(x, 0.5))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_the_product_with_dropped_weights(p: float) -> None:
    """The same masks, value and gradients as dropping first; beyond its inputs backward keeps one byte per weight."""
    weights, value = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 5, 6), (2, 6, 3)))
    seed, kept, results = torch.randn(2, 5, 3, dtype=torch.float64), [], []
    for form in (dropped_product, lambda w, v, p: dropout(w, p) @ v):
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            y = form(weights, value, p)
        results.append((y, *torch.autograd.grad(y, (weights, value), seed)))
        if p == 0.3 and len(results) == 1:
            own = {weights.data_ptr(), value.data_ptr()}
            assert [(t.dtype, t.shape) for t in kept if t.data_ptr() not in own] == [(torch.uint8, weights.shape)]
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def tiny(hidden: float = 0.1, weights: float = 0.1) -> nn.Module:
    torch.manual_seed(0)
    config = tiny_config(vocab_size=50, hidden_dropout_prob=hidden, attention_probs_dropout_prob=weights, num_labels=2)
    return AutoModelForSequenceClassification.from_config(config)


def test_a_model_is_changed_throughout() -> None:
    """Every dropout module, and the attention; in evaluation nothing changes, in training the logits do vary."""
    ids = torch.randint(1, 50, (4, 7), generator=torch.Generator().manual_seed(0))
    seen = torch.ones_like(ids)
    seen[0, 5:] = 0
    net = tiny().eval()
    before = net(input_ids=ids, attention_mask=seen).logits
    use_lean_dropout(net)
    assert {type(m) for m in net.modules() if isinstance(m, nn.Dropout)} == {LeanDropout}
    assert net.config._attn_implementation == ATTENTION
    torch.testing.assert_close(net(input_ids=ids, attention_mask=seen).logits, before)
    net.train()
    assert not torch.equal(net(input_ids=ids).logits, net(input_ids=ids).logits)


@pytest.mark.parametrize("padded", [False, True])
def test_attention_is_torchs_but_for_what_drops(padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropping replaced by nothing, output and gradients are those of torch's attention."""
    import rankopt.training.dropout as module

    monkeypatch.setattr(module, "dropped_product", lambda weights, value, p: weights @ value)
    q, k, v = (torch.randn(2, 3, 5, 4, requires_grad=True) for _ in range(3))
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    mask[0, :, :, 3:] = False
    where = mask if padded else None
    ours, _ = attention(nn.Identity(), q, k, v, where, dropout=0.1, is_causal=False)
    theirs = nn.functional.scaled_dot_product_attention(q, k, v, where).transpose(1, 2)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours.square().sum(), (q, k, v)),
        torch.autograd.grad(theirs.square().sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_rotated_query_is_wider_than_the_value() -> None:
    """Rotation by float32 angles under bf16 autocast widens query and key alone; backward runs outside autocast."""
    q, k = (torch.randn(2, 3, 5, 4, requires_grad=True) for _ in range(2))
    v = torch.randn(2, 3, 5, 4, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = attention(nn.Identity(), q, k, v, None, dropout=0.1)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert all(x.grad is not None and x.grad.dtype == x.dtype and x.grad.isfinite().all() for x in (q, k, v))


def test_a_float32_prefix_widens_key_and_value() -> None:
    """Trained keys and values in front of an attention stay in float32 under bf16 autocast."""
    q = torch.randn(2, 3, 5, 4, dtype=torch.bfloat16, requires_grad=True)
    k, v = (torch.randn(2, 3, 7, 4, requires_grad=True) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = attention(nn.Identity(), q, k, v, None, dropout=0.1)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert all(x.grad is not None and x.grad.dtype == x.dtype and x.grad.isfinite().all() for x in (q, k, v))


def test_a_causal_model_stays_causal() -> None:
    """Where no mask says who sees whom, torch's own attention is used: later tokens change no earlier output."""
    module = nn.Identity()
    module.is_causal = True  # type: ignore[assignment]
    q, k, v = (torch.randn(1, 2, 6, 4) for _ in range(3))
    torch.manual_seed(0)
    first, _ = attention(module, q, k, v, None, dropout=0.1)
    k[:, :, -1] += 1
    torch.manual_seed(0)
    second, _ = attention(module, q, k, v, None, dropout=0.1)
    torch.testing.assert_close(first[:, :-1], second[:, :-1])
