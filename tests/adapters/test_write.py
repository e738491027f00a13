"""Written adapters: scale and alpha, and a check that notices every difference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import rankopt
from rankopt.adapters.adapter import Adapter, read_adapter
from rankopt.adapters.convert import convert
from rankopt.adapters.merge import merge_adapters
from rankopt.adapters.write import Update, carried_tensors, verify, write_adapter

WEIGHTS = "adapter_model.safetensors"


def unchanged(source: Adapter) -> list[Update]:
    return [Update(module, source.factors(name), module.scale).rounded() for name, module in source.modules.items()]


def test_rewriting_changes_no_update(case: str, tmp_path: Path, stock: Any) -> None:
    """Every kind of adapter, written again with its own factors, has the same updates and other tensors."""
    stock.make(case, tmp_path / "a")
    source, out = read_adapter(tmp_path / "a"), tmp_path / "b"
    out.mkdir()
    updates = unchanged(source)
    carried = carried_tensors(source, updates)
    write_adapter(out, source, updates, carried)
    written = verify(out, updates, carried)
    assert written.config.kind in ("LoRA", "DoRA")
    before, after = stock.dense(tmp_path / "a"), stock.dense(out)
    for name, update in before.items():
        torch.testing.assert_close(after[name], update, atol=1e-6, rtol=1e-5)
    assert set(written.carried) == set(source.carried)


@pytest.mark.parametrize(("scale", "rank", "alpha"), [(1.5, 4, 6), (0.1, 3, 0.1 * 3), (2 / 3, 3, 2), (0.75, 5, 3.75)])
def test_alpha(scale: float, rank: int, alpha: float, adapter_of: Callable[..., Path]) -> None:
    """Scale times rank, an integer where that is exact."""
    source = read_adapter(adapter_of("plain"))
    module = next(iter(source.modules.values()))
    A, B = source.factors(module.name)
    update = Update(module, type(source.factors(module.name))(A[:1].repeat(rank, 1), B[:, :1].repeat(1, rank)), scale)
    assert update.alpha == alpha
    assert type(update.alpha) is type(alpha)


def spoil_value(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    key = next(iter(tensors))
    save_file(tensors | {key: tensors[key] + 1e-3}, folder / WEIGHTS)


def spoil_scale(folder: Path) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": 7}))


def spoil_names(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {"base_model.model.extra.weight": torch.zeros(1)}, folder / WEIGHTS)


@pytest.mark.parametrize("spoil", [spoil_value, spoil_scale, spoil_names])
def test_every_difference_is_noticed(
    spoil: Callable[[Path], None], adapter_of: Callable[..., Path], tmp_path: Path
) -> None:
    source, out = read_adapter(adapter_of("plain")), tmp_path / "b"
    out.mkdir()
    updates = unchanged(source)
    carried = carried_tensors(source, updates)
    write_adapter(out, source, updates, carried)
    spoil(out)
    with pytest.raises(OSError, match="the written adapter differs from the intended one"):
        verify(out, updates, carried)


def test_the_models_config_is_kept(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """Compressed, added and converted adapters have the `config.json` that export wrote; a link out of the folder is
    refused."""
    source = adapter_of("rsLoRA")
    rankopt.compress(source, tmp_path / "without", rank=1)
    assert not (tmp_path / "without" / "config.json").exists()
    (source / "config.json").write_text('{"id2label": {"0": "no"}}')
    rankopt.compress(source, tmp_path / "small", rank=1)
    merge_adapters([source, adapter_of("rsLoRA", 2, "other")], tmp_path / "sum")
    convert(source, tmp_path / "plain")
    for name in ("small", "sum", "plain"):
        assert (tmp_path / name / "config.json").read_text() == '{"id2label": {"0": "no"}}'
    (source / "config.json").unlink()
    (source / "config.json").symlink_to(tmp_path / "sum" / "config.json")
    with pytest.raises(ValueError, match="must be inside its folder, got a link"):
        rankopt.compress(source, tmp_path / "b", rank=1)
