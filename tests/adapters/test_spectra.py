"""Singular values and measures of an adapter, compared with dense decompositions."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rankopt
from rankopt.adapters.page import write_page

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_against_dense_decompositions(case: str, tmp_path: Path, stock: Any) -> None:
    """Singular values and measures of PEFT's own delta weights."""
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


def test_json(adapter_of: Callable[..., Path]) -> None:
    """The plain data of an analysis."""
    data = json.loads(json.dumps(rankopt.spectrum(adapter_of("rank and alpha patterns")).to_json()))
    assert data["parameters"] == sum(module["parameters"] for module in data["modules"])
    assert set(data["parameters_for_energy"]) == {"0.9", "0.95", "0.99"}
    assert {"0.5", "0.25"} <= set(data["patterns"])
    for pattern in data["patterns"].values():
        assert set(pattern["ranks"]) == {module["name"] for module in data["modules"]}
    by_name = {module["name"].rpartition("attention.")[2]: module for module in data["modules"]}
    assert by_name["self.query"]["rank"] == 2
    assert by_name["self.key"]["scale"] == 0.75


def test_modules_without_components(tmp_path: Path, stock: Any) -> None:
    """AdaLoRA stores modules of rank 0: they are analysed, drawn and removed like others."""
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


def test_importing_rankopt_is_light() -> None:
    """`import rankopt` does not import torch; its functions do on first use; unknown names raise AttributeError."""
    import sys

    code = "import rankopt, sys; assert 'torch' not in sys.modules; rankopt.spectrum; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'spektrum'"):
        rankopt.spektrum  # noqa: B018
