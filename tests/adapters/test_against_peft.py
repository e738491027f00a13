"""Compare `rankopt.compress` with PEFT's own methods at equal parameters: a table, and a check that it is never worse.

    python tests/adapters/test_against_peft.py            # no network; trains one adapter on an embedded task

For every adapter and size the methods are PEFT's `convert_to_lora` (one rank, or a share of energy per layer), PEFT's
`add_weighted_adapter` with SVD, one rank for all modules, and `rankopt.compress` with as many parameters. The error is
the Frobenius norm of the difference of all dense updates, relative to their norm.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, convert_to_lora, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

import rankopt
from rankopt.adapters.adapter import read_adapter
from rankopt.lowrank.files import CONFIG, WEIGHTS

Updates = Mapping[str, Tensor]
RANKS = (1, 2, 4)
SHARES = (0.5, 0.8, 0.95)


class Maps(nn.Module):
    """Linear maps of three shapes, enough for PEFT to adapt."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {"wide": (24, 72), "tall": (72, 24), "square": (40, 40)}
        self.layer = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(*shape, bias=False) for name, shape in shapes.items()}) for _ in range(4)
        )
        self.config = {"model_type": "maps"}


SPECTRA = {
    "flat": lambda layer: torch.ones(8),
    "falling": lambda layer: 0.5 ** torch.arange(8.0),
    "power law, layers of different size": lambda layer: (1 + layer) / torch.arange(1.0, 9),
    "one layer has nearly all energy": lambda layer: (10.0 if layer == 2 else 0.1) * 0.8 ** torch.arange(8.0),
    "true ranks 1 to 4": lambda layer: (torch.arange(8) <= layer).float(),
}


def synthetic(kind: str, folder: Path) -> Any:
    """An adapter whose updates have known singular values, written by stock PEFT; returns its model."""
    torch.manual_seed(0)
    model = get_peft_model(Maps(), LoraConfig(r=8, lora_alpha=12, target_modules=["wide", "tall", "square"]))
    for layer, block in enumerate(model.base_model.model.layer):
        for part in block.values():
            S = SPECTRA[kind](layer) / 1.5  # the scale
            U, V = (torch.linalg.qr(torch.randn(size, 8)).Q for size in (part.out_features, part.in_features))
            mix = torch.linalg.qr(torch.randn(8, 8)).Q
            part.lora_B["default"].weight.data = (U * S) @ mix
            part.lora_A["default"].weight.data = mix.T @ V.T
    model.save_pretrained(str(folder))
    return model


def trained(scratch: Path) -> tuple[Path, Path]:
    """An adapter of rank 8 trained on the embedded acceptability task, and the base model's folder."""
    from rankopt.tasks.mini_encoder import encoder_path

    (scratch / "s.yaml").write_text(
        "name: s\nbase:\n  task: {name: mini-cola}\n  model: {name: mini, max_rank: 8, alpha: 2.0, scale: unit}\n"
        "  allocator: {name: uniform}\n  budget: {mean_rank: 8}\n  training: {steps: 150, batch_size: 32, lr: 6.0e-3}\n"
        "space: {seed: [0]}\n"
    )
    for words in (["run", "s.yaml", "--wandb", "disabled"], ["export", "s", "--out", "adapter"]):
        subprocess.run([sys.executable, "-m", "rankopt", *words], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
    folder = scratch / "adapter"
    tensors = load_file(folder / WEIGHTS)  # PEFT adds up no adapters with heads
    save_file({key: value for key, value in tensors.items() if ".lora_" in key}, folder / WEIGHTS)
    config = json.loads((folder / CONFIG).read_text()) | {"modules_to_save": None, "task_type": None}
    (folder / CONFIG).write_text(json.dumps(config))
    return folder, encoder_path()


def updates_of(folder: Path) -> Updates:
    """Every module's update as a dense matrix."""
    adapter = read_adapter(folder)
    return {
        name: module.scale * adapter.factors(name).B @ adapter.factors(name).A
        for name, module in adapter.modules.items()
    }


def error(meant: Updates, made: Updates) -> float:
    """Relative error over all modules; a missing module is zero."""
    lost = sum(
        float((update - made.get(name, torch.zeros_like(update))).square().sum()) for name, update in meant.items()
    )
    return (lost / sum(float(update.square().sum()) for update in meant.values())) ** 0.5


def converted(model: Any, rank: int | float) -> tuple[int, Updates]:
    """PEFT's `convert_to_lora`: the number of parameters, and the updates at its scale 1."""
    _, state = convert_to_lora(model, rank)
    factors = {key.removeprefix("base_model.model."): value.double() for key, value in state.items() if ".lora_" in key}
    names = {key.partition(".lora_")[0] for key in factors}
    made = {name: factors[f"{name}.lora_B.weight"] @ factors[f"{name}.lora_A.weight"] for name in names}
    return sum(value.numel() for value in factors.values()), made


def combined(model: Any, rank: int) -> tuple[int, Updates]:
    """PEFT's `add_weighted_adapter` with SVD, of two halves; it copies a single adapter without truncating it."""
    name = f"svd{rank}"
    model.add_weighted_adapter(["default", "twin"], [0.5, 0.5], name, combination_type="svd", svd_rank=rank)
    layers = {
        key: layer for key, layer in model.base_model.model.named_modules() if name in getattr(layer, "lora_A", {})
    }
    size = sum(layer.lora_A[name].weight.numel() + layer.lora_B[name].weight.numel() for layer in layers.values())
    return size, {key: layer.get_delta_weight(name).detach().double() for key, layer in layers.items()}


def compare(name: str, folder: Path, model: Any, scratch: Path) -> Iterator[dict[str, Any]]:
    """One row per method and size."""
    meant = updates_of(folder)
    model.load_adapter(str(folder), "twin")
    ways: list[tuple[str, int, Updates]] = []
    for rank in RANKS:
        ways += [(f"convert_to_lora({rank})", *converted(model, rank)), (f"svd, rank {rank}", *combined(model, rank))]
        even = rankopt.compress(folder, scratch / f"{name}-{rank}", rank=rank, uniform=True)
        ways.append((f"one rank: {rank}", even.parameters, updates_of(even.folder)))
    ways += [(f"convert_to_lora({share})", *converted(model, share)) for share in SHARES]
    for index, (way, size, made) in enumerate(ways):
        ours = rankopt.compress(folder, scratch / f"{name}-ours-{index}", budget=size)
        mine = updates_of(ours.folder)
        tails = [torch.linalg.svdvals(update)[ours.cuts[key].kept :].square().sum() for key, update in meant.items()]
        tail = float(sum(tails)) ** 0.5 / float(sum(update.square().sum() for update in meant.values())) ** 0.5
        yield {
            "adapter": name,
            "against": way,
            "parameters": size,
            "its error": error(meant, made),
            "ours": ours.parameters,
            "our error": error(meant, mine),
            "tail": tail,
        }


def check(rows: list[dict[str, Any]]) -> None:
    """Never more parameters, never a larger error, and the error is the tail of the spectrum to 1e-5."""
    for row in rows:
        assert row["ours"] <= row["parameters"], row
        assert row["our error"] <= row["its error"] + 1e-6, row
        assert abs(row["our error"] - row["tail"]) <= 1e-5, row


def synthetic_rows(kind: str, scratch: Path) -> list[dict[str, Any]]:
    return list(compare(kind, scratch / "adapter", synthetic(kind, scratch / "adapter"), scratch))


def trained_rows(scratch: Path) -> list[dict[str, Any]]:
    folder, base = trained(scratch)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    return list(compare("trained on mini-cola", folder, PeftModel.from_pretrained(model, str(folder)), scratch))


@pytest.mark.filterwarnings("ignore")  # PEFT warns that a LoRA adapter need not be converted to LoRA
@pytest.mark.parametrize("kind", SPECTRA)
def test_known_spectra(kind: str, tmp_path: Path) -> None:
    rows = synthetic_rows(kind, tmp_path)
    assert len(rows) == 12
    check(rows)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_trained_adapter(tmp_path: Path) -> None:
    rows = trained_rows(tmp_path)
    check(rows)
    assert any(row["our error"] < 0.95 * row["its error"] for row in rows)


def main() -> None:
    from rankopt.cli import printing

    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for make in (*(partial(synthetic_rows, kind) for kind in SPECTRA), trained_rows):
        with tempfile.TemporaryDirectory() as scratch:
            rows += make(Path(scratch))
    check(rows)
    shown = [{key: f"{value:.6f}" if isinstance(value, float) else value for key, value in row.items()} for row in rows]
    printing.table(shown, "relative error at equal parameters")
    better = sum(row["our error"] < row["its error"] - 1e-6 for row in rows)
    print(f"{len(rows)} comparisons: ours is better in {better}, equal in {len(rows) - better}, worse in none")


if __name__ == "__main__":
    main()
