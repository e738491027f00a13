"""AdaLoRA's importance by hand, and compared with PEFT."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft.tuners.adalora.layer import RankAllocator
from torch import nn

from rankopt.importance.sensitivity import smooth, triplet


def test_one_step_from_zero() -> None:
    """Ibar = .15 I, Ubar = .15 (1 - .15) I, score = .019125 I^2: no bias correction, Ubar uses the new Ibar."""
    w, grad = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    mean, variation = torch.zeros_like(w), torch.zeros_like(w)
    smooth([mean], [variation], [w], [grad], 0.85, 0.85)
    I = (w * grad).abs()  # noqa: E741
    torch.testing.assert_close(mean, 0.15 * I)
    torch.testing.assert_close(variation, 0.1275 * I)
    torch.testing.assert_close(mean * variation, 0.019125 * I**2)


@given(st.floats(0, 0.99), st.floats(0, 0.99), st.integers(0, 99))
def test_many_steps(beta1: float, beta2: float, seed: int) -> None:
    """The recursion written out for scalars, with two different decays."""
    generator = torch.Generator().manual_seed(seed)
    mean, variation = torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    I_bar, U_bar = [0.0] * 5, [0.0] * 5
    for _ in range(4):
        w, grad = torch.randn(2, 5, dtype=torch.float64, generator=generator)
        smooth([mean], [variation], [w], [grad], beta1, beta2)
        for j in range(5):
            I = abs(float(w[j]) * float(grad[j]))  # noqa: E741
            I_bar[j] = beta1 * I_bar[j] + (1 - beta1) * I
            U_bar[j] = beta2 * U_bar[j] + (1 - beta2) * abs(I - I_bar[j])
    assert mean.tolist() == pytest.approx(I_bar)
    assert variation.tolist() == pytest.approx(U_bar)


def test_inputs_do_not_change() -> None:
    w, grad = torch.randn(3, requires_grad=True), torch.randn(3)
    before = w.detach().clone(), grad.clone()
    smooth([torch.zeros(3)], [torch.zeros(3)], [w], [grad], 0.85, 0.85)
    assert torch.equal(w, before[0])
    assert torch.equal(grad, before[1])


def test_triplet_by_hand() -> None:
    """A gate's importance plus the means over B's column and A's row."""
    A, B, g = (
        torch.tensor([[1.0, 3.0], [0.0, 0.0]]),
        torch.tensor([[3.0, 1.0], [6.0, 2.0], [0.0, 3.0]]),
        torch.arange(2.0),
    )
    assert triplet(A, B, g).tolist() == [0 + 3 + 2, 1 + 2 + 0]


def test_same_as_peft() -> None:
    """The same averages and scores as `RankAllocator.update_ipt` and its mask, over 30 steps."""
    torch.manual_seed(0)
    names = ["lora_A", "lora_B", "lora_E"]
    model = nn.ModuleDict({name: nn.ParameterDict() for name in names})
    for name, shape in zip(names, [(3, 5), (7, 3), (3, 1)], strict=True):
        model[name]["default"] = nn.Parameter(torch.randn(shape))
    config = SimpleNamespace(beta1=0.85, beta2=0.7, target_r=2, total_step=100, tfinal=0, tinit=0, deltaT=1)
    theirs = RankAllocator(model, config, "default")
    mean = {name: torch.zeros_like(model[name]["default"]) for name in names}
    variation = {name: torch.zeros_like(model[name]["default"]) for name in names}
    for _ in range(30):
        for name in names:
            parameter = model[name]["default"]
            parameter.data += 0.1 * torch.randn_like(parameter)
            parameter.grad = torch.randn_like(parameter)
            smooth([mean[name]], [variation[name]], [parameter], [parameter.grad], 0.85, 0.7)
        theirs.update_ipt(model)
        for name in names:
            torch.testing.assert_close(mean[name], theirs.exp_avg_ipt[f"{name}.default"])
            torch.testing.assert_close(variation[name], theirs.exp_avg_unc[f"{name}.default"])
    entries = {name: mean[name] * variation[name] for name in names}
    ours = triplet(entries["lora_A"], entries["lora_B"], entries["lora_E"].squeeze(1))
    kept = theirs.mask_to_budget(model, 2)["lora_E.default"]
    assert kept == (ours > ours.min()).tolist()
