"""What an analysis says, against dense decompositions and brute force; the page and the commands around it."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rankopt
from rankopt.adapters.choose import Target
from rankopt.adapters.page import write_page

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_against_dense_decompositions(case: str, tmp_path: Path, stock: Any) -> None:
    """Singular values of PEFT's own delta weights, and what follows from them."""
    _, model = stock.make(case, tmp_path / "a")
    found = rankopt.spectrum(tmp_path / "a")
    layers = dict(model.base_model.model.named_modules())
    for name, one in found.modules.items():
        S = torch.linalg.svdvals(layers[name].get_delta_weight("default").detach().double())[: len(one.S)].numpy()
        np.testing.assert_allclose(one.S, S, atol=1e-6 * S[0], rtol=1e-5)
        assert one.norm == pytest.approx(float(np.linalg.norm(S)), rel=1e-5)
        np.testing.assert_allclose(one.energy, np.cumsum(S**2) / np.sum(S**2), rtol=1e-5)
        assert 1 <= one.stable_rank <= one.effective_rank <= one.module.rank + 1e-9
    assert found.total == pytest.approx(sum(one.norm**2 for one in found.modules.values()))


def test_choices_are_the_best_there_are(adapter_of: Callable[..., Path]) -> None:
    """Against every pattern of a small adapter: most energy for the parameters, fewest parameters for the energy."""
    found = rankopt.spectrum(adapter_of("some layers"))
    modules = found.adapter.modules
    patterns = [
        dict(zip(modules, ranks, strict=True))
        for ranks in itertools.product(*(range(module.rank + 1) for module in modules.values()))
        if any(ranks)
    ]
    cost = {name: module.shape.cost for name, module in modules.items()}

    def price(pattern: dict[str, int]) -> int:
        return sum(cost[name] * rank for name, rank in pattern.items())

    def energy(pattern: dict[str, int]) -> float:
        return sum(float(np.square(found.modules[name].S[:rank]).sum()) for name, rank in pattern.items()) / found.total

    for budget in range(min(cost.values()), found.adapter.parameters + 1, 8):
        best = max(energy(pattern) for pattern in patterns if price(pattern) <= budget)
        choice = found.choose(Target(budget=budget))
        assert choice.exact
        assert choice.energy == pytest.approx(best, abs=1e-9)
        assert choice.energy >= found.choose(Target(budget=budget)).energy
        if budget >= sum(cost.values()):
            assert choice.energy >= found.choose(Target(budget=budget, uniform=True)).energy - 1e-12
    for share in (0.3, 0.8, 0.9, 0.99):
        fewest = min(price(pattern) for pattern in patterns if energy(pattern) >= share)
        assert found.choose(Target(energy=share)).parameters == fewest


def test_without_a_table(adapter_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where costs have no common divisor worth the name, the search near the linear optimum finds the same."""
    found = rankopt.spectrum(adapter_of("rank and alpha patterns"))
    targets = [Target(**{kind: value}) for kind in ("ratio", "energy") for value in (0.2, 0.5, 0.9)]
    exact = [found.choose(target) for target in targets]
    monkeypatch.setattr("rankopt.adapters.choose.TABLE", 1)
    for target, choice in zip(targets, exact, strict=True):
        other = found.choose(target)
        assert other.exact
        assert other.energy == pytest.approx(choice.energy, abs=1e-12) or target.energy
        assert other.parameters == choice.parameters or target.ratio
    monkeypatch.setattr("rankopt.analysis.knapsack_core.STATES", 0)
    assert not all(found.choose(target).exact for target in targets)


def test_json(adapter_of: Callable[..., Path]) -> None:
    """Plain data with everything in it."""
    data = json.loads(json.dumps(rankopt.spectrum(adapter_of("rank and alpha patterns")).to_json()))
    assert data["parameters"] == sum(module["parameters"] for module in data["modules"])
    assert set(data["parameters_for_energy"]) == {"0.9", "0.95", "0.99"}
    assert {"0.5", "0.25"} <= set(data["patterns"])
    for pattern in data["patterns"].values():
        assert set(pattern["ranks"]) == {module["name"] for module in data["modules"]}
    by_name = {module["name"].rpartition("attention.")[2]: module for module in data["modules"]}
    assert by_name["self.query"]["rank"] == 2
    assert by_name["self.key"]["scale"] == 0.75


def test_the_page(case: str, tmp_path: Path, stock: Any) -> None:
    """Self-contained, with every module named and both figures' data; it asks the network for nothing."""
    stock.make(case, tmp_path / "a")
    write_page(rankopt.spectrum(tmp_path / "a"), tmp_path / "deep" / "page.html")
    text = (tmp_path / "deep" / "page.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", text.replace('href="#', "")[:20_000])
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    assert {"plot-heat-1", "plot-heat-3", "plot-spectra-1", "plot-trade-off-1"} <= set(figures)
    for name in rankopt.spectrum(tmp_path / "a").modules:
        assert name in text


def test_modules_without_components(tmp_path: Path, stock: Any) -> None:
    """AdaLoRA stores modules of rank 0: they are analysed, drawn and dropped like any other."""
    _, model = stock.make("AdaLoRA", tmp_path / "ignored")
    masks = {
        f"{name}.lora_E": [index == 1] + [False] * 3
        for index, (name, layer) in enumerate(
            (name, layer) for name, layer in model.base_model.model.named_modules() if hasattr(layer, "lora_E")
        )
    }
    model.peft_config["default"].rank_pattern = masks
    model.save_pretrained(str(tmp_path / "a"))
    found = rankopt.spectrum(tmp_path / "a")
    assert sorted(one.module.rank for one in found.modules.values()) == [0, 0, 0, 1]
    assert [one.effective_rank for one in found.modules.values() if one.module.rank == 0] == [0.0] * 3
    json.dumps(found.to_json(), allow_nan=False)
    write_page(found, tmp_path / "page.html")
    done = rankopt.compress(tmp_path / "a", tmp_path / "b", energy=1.0)
    assert (done.parameters, done.relative_error < 1e-6) == (32, True)
    stock.load("roberta", tmp_path / "b")


def test_the_package_is_light() -> None:
    """`import rankopt` imports no torch; its functions do when they are asked for; other names are no attributes."""
    import sys

    code = "import rankopt, sys; assert 'torch' not in sys.modules; rankopt.spectrum; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'spektrum'"):
        rankopt.spektrum  # noqa: B018


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "folder", "file/page.html"])
def test_a_page_replaces_only_pages(name: str, adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """Not weights, not folders, and nothing below a file."""
    (tmp_path / "adapter_model.safetensors").write_text("weights")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="--html must"):
        write_page(rankopt.spectrum(adapter_of("plain")), tmp_path / name)
    assert (tmp_path / "adapter_model.safetensors").read_text() == "weights"
