"""A convolution's low-rank update: the equation, PEFT's own layer, merging."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rankopt.lowrank.conv import LowRankConv, is_conv
from rankopt.lowrank.export import export_peft
from rankopt.lowrank.inject import inject, target_names
from rankopt.lowrank.layers import pattern_of
from rankopt.lowrank.scale import Scale

CASES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "1d": (lambda: nn.Conv1d(3, 5, 4, stride=2, padding=1), (2, 3, 9)),
    "2d": (lambda: nn.Conv2d(3, 5, (2, 3), stride=(1, 2), padding=1, bias=False), (2, 3, 8, 9)),
    "2d same": (lambda: nn.Conv2d(3, 5, 3, padding="same"), (2, 3, 6, 6)),
    "3d": (lambda: nn.Conv3d(2, 4, 2), (2, 2, 4, 4, 4)),
}


def layer(case: str, rank: int = 2) -> tuple[LowRankConv, torch.Tensor]:
    torch.manual_seed(0)
    make, shape = CASES[case]
    found = LowRankConv(make(), 4, Scale("init", 3.0))
    nn.init.normal_(found.A)
    nn.init.normal_(found.B)
    nn.init.normal_(found.g)
    found.open(rank)
    return found, torch.randn(shape)


@pytest.mark.parametrize("case", CASES)
def test_it_is_a_convolution_with_another_kernel(case: str) -> None:
    """The output is that of the base's convolution with the kernel `W + update`, and merging computes it so."""
    found, x = layer(case)
    base: Any = found.base
    kernel = base.weight + found.as_weight(found.update())
    expected = base._conv_forward(x, kernel, base.bias)
    torch.testing.assert_close(found(x), expected, atol=1e-5, rtol=1e-4)
    found.merge()
    torch.testing.assert_close(found(x), expected, atol=1e-5, rtol=1e-4)
    found.unmerge()
    found.keep(0)
    assert torch.equal(found(x), base(x))


def test_gradients_and_mask() -> None:
    """Open components get gradients, masked ones none, and W none."""
    found, x = layer("2d")
    found.g.requires_grad_(True)
    found(x).square().sum().backward()
    assert found.base.weight.grad is None
    for factor, dim in ((found.A, 0), (found.B, 1), (found.g, 0)):
        assert factor.grad is not None
        open_, masked = factor.grad.split(2, dim=dim)
        assert open_.any()
        assert not masked.any()


@pytest.mark.parametrize("case", CASES)
def test_peft_loads_it(case: str, tmp_path: Path) -> None:
    """PEFT's convolution with the exported factors computes the same, next to a linear map."""
    from peft import PeftModel

    make, shape = CASES[case]
    torch.manual_seed(0)
    net = nn.Sequential(make(), nn.Flatten(), nn.LazyLinear(3))
    x = torch.randn(shape)
    net(x)
    fresh = copy.deepcopy(net)
    layers = inject(net, target_names(net, ["0", "2"], convolutions=True), 4, Scale("init", 3.0))
    for name, one in layers.items():
        nn.init.normal_(one.B)
        nn.init.normal_(one.A)
        one.open(2 if name == "0" else 3)
    export_peft(layers, net, tmp_path, task_type=None)
    assert dict(pattern_of(layers)) == {"0": 2, "2": 3}
    torch.testing.assert_close(
        PeftModel.from_pretrained(fresh, str(tmp_path)).eval()(x), net.eval()(x), atol=1e-5, rtol=1e-4
    )


def test_what_is_selected() -> None:
    """Only a name selects a convolution, and one with groups cannot be adapted."""
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Linear(2, 2), nn.ConvTranspose2d(2, 2, 1))
    assert target_names(net, "all-linear", convolutions=True) == ["1"]
    assert target_names(net, ["0"], convolutions=True) == ["0"]
    with pytest.raises(ValueError, match="'0' matches no linear map"):
        target_names(net, ["0"])
    assert [is_conv(module) for module in net] == [True, False, False]
    for unlike in ({"groups": 2}, {"dilation": 2}, {"padding_mode": "reflect"}):
        with pytest.raises(ValueError, match=f"PEFT adapts no convolution with {next(iter(unlike))}="):
            LowRankConv(nn.Conv2d(4, 4, 1, **unlike), 2, Scale("unit", 1.0))
