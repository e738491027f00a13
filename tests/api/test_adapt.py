"""The arguments of `adapt`: what is adapted, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from own_training import decoder, encoder
from torch import nn

import rankopt
from rankopt.lowrank.linear import LowRankLinear


def test_what_is_adapted_and_trained() -> None:
    """All linear maps of the blocks but neither head nor pooler; adapters and head are trained, nothing else; the
    model computes what it did."""
    model: Any = encoder().eval()
    ids = torch.arange(3, 11).reshape(1, 8)
    before = model(ids).logits
    adapted = rankopt.adapt(model, "uniform", mean_rank=2)
    assert len(adapted.layers) == 12
    assert adapted.head == ("classifier",)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    factors = {f"{name}.{key}" for name in adapted.layers for key in "AB"}
    assert trained == factors | {"classifier.weight", "classifier.bias"}
    torch.testing.assert_close(model(ids).logits, before)


def test_targets_and_modules_to_save() -> None:
    """Endings of names select layers, and any module can be trained in full; the map onto a vocabulary is left out of
    "all-linear" and can be named."""
    adapted = rankopt.adapt(encoder(), mean_rank=2, target_modules=["query"], modules_to_save=["bert.pooler"])
    assert [name.split(".")[-1] for name in adapted.layers] == ["query", "query"]
    assert adapted.head == ("bert.pooler",)
    assert "lm_head" not in rankopt.adapt(decoder(), mean_rank=2).layers
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    assert list(rankopt.adapt(net, "uniform", mean_rank=1, modules_to_save=["2"]).layers) == ["0"]


def test_budgets() -> None:
    """A budget in parameters is kept too; an allocator that needs none takes all components."""
    adapted = rankopt.adapt(encoder(), "uniform", parameters=1000)
    assert 900 < sum(layer.rank * layer.shape.cost for layer in adapted.layers.values()) <= 1000
    with pytest.raises(ValueError, match="budget must be given for the allocator 'uniform'"):
        rankopt.adapt(encoder(), "uniform")


def test_the_same_seed_is_the_same_start() -> None:
    """The seed decides A, also where `start` runs again when training begins with another number of steps."""
    first, second, other = (rankopt.adapt(encoder(), mean_rank=2, seed=seed) for seed in (0, 0, 1))
    name = next(iter(first.layers))
    second.training.begin(30)
    assert torch.equal(first.layers[name].A, second.layers[name].A)
    assert not torch.equal(first.layers[name].A, other.layers[name].A)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"allocator": "adalra"}, "^allocator must be one of uniform"),
        ({"mean_rank": 9.0}, "mean_rank must be at most max_rank, got 9 > 8"),
        ({"mean_rank": 2, "parameters": 100}, "give exactly one of mean_rank, ranks, parameters"),
        ({"mean_rank": -1.0}, "mean_rank must be at least 0|mean_rank"),
        ({"initial": 0.5}, "initial"),
        ({"intial": 1.5}, "did you mean 'initial'"),
        ({"target_modules": ["qeury"]}, "target_modules 'qeury' matches no linear map; did you mean 'query'"),
        ({"modules_to_save": ["clasifier"]}, "modules_to_save must be full module names of the model, got 'clasifier'"),
        ({"scale": "active"}, "scale must be one of published, init, rs, unit for the allocator 'adalora'"),
        ({"allocator": "nested"}, "'nested' trains a super-network, which only a study can score"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 10, "warmup": 8, "final": 5}, "warmup \\+ final must be fewer than the trial's 10 steps"),
    ],
)
def test_refused(arguments: dict[str, Any], message: str) -> None:
    """One line in terms of the arguments, before the model is changed."""
    model = encoder()
    with pytest.raises(ValueError, match=message) as caught:
        rankopt.adapt(model, **({"mean_rank": 2} | arguments))
    assert "\n" not in str(caught.value)
    assert "allocator.name" not in str(caught.value)


def test_refused_models() -> None:
    """An adapted model, quantised weights, and a model without linear maps."""
    model = encoder()
    rankopt.adapt(model, mean_rank=2)
    with pytest.raises(ValueError, match="model is adapted already"):
        rankopt.adapt(model, mean_rank=2)

    quantised = type("Linear4bit", (nn.Linear,), {"__module__": "bitsandbytes.nn.modules"})
    with pytest.raises(ValueError, match=r"quantised weights \(Linear4bit\)"):
        rankopt.adapt(nn.Sequential(quantised(4, 4)), mean_rank=2)
    with pytest.raises(ValueError, match="matches no linear map"):
        rankopt.adapt(nn.Sequential(nn.Conv2d(1, 2, 3)), mean_rank=2)


def test_a_refused_model_is_not_changed() -> None:
    """When the allocator cannot start, the model has its own modules and its own trained parameters."""
    model = encoder()
    with pytest.raises(ValueError, match="must be fewer"):
        rankopt.adapt(model, mean_rank=2, steps=10, warmup=8, final=5)
    assert not any(isinstance(module, LowRankLinear) for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_convolutions(tmp_path: Path) -> None:
    """A convolution is adapted where it is named, and PEFT loads the result; methods that look at inputs refuse it."""
    from peft import PeftModel

    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))

    images, model = torch.randn(8, 1, 8, 8), net()
    adapted = rankopt.adapt(model, mean_rank=2, max_rank=4, target_modules=["0", "3"], steps=6, warmup=0.1, final=0.3)
    optimizer = torch.optim.AdamW(adapted.parameter_groups(lr=1e-2))
    for _ in range(6):
        adapted.before_step()
        (nn.functional.cross_entropy(model(images), torch.arange(8) % 3) + adapted.penalty()).backward()
        optimizer.step()
        adapted.after_step(optimizer)
        optimizer.zero_grad()
    assert adapted.save(tmp_path).total == 4
    loaded = PeftModel.from_pretrained(net(), str(tmp_path)).eval()
    assert torch.allclose(loaded(images), model.eval()(images), atol=1e-5)
    for allocator in ("eva", "increlora"):
        with pytest.raises(ValueError, match=f"convolutions, such as 0, for the allocator '{allocator}'"):
            rankopt.adapt(net(), allocator, mean_rank=2, target_modules=["0"])
