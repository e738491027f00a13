"""Merging an adapter into the weights of its base model."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from rankopt.adapters.adapter import Adapter, read_adapter
from rankopt.adapters.base_model import add_updates, carried_weights, load_base, merged_weight, weight_matrix
from rankopt.adapters.compress import refuse_base_changes
from rankopt.adapters.write import Written
from rankopt.core.folders import new_folder


def merge_into_base(adapter: str | Path | Adapter, model: str, out: str | Path) -> Written:
    """Write a base model with an adapter's updates in its weights; rankopt and PEFT are not needed to load it.

    The model is computed in float64 and rounded once to its own dtype, saved by transformers, loaded again and compared
    weight by weight before the folder appears.

    Args:
        adapter: a folder, a hub id, or an adapter that was read.
        model: the base model's folder or hub id.
        out: the folder to make; must not exist.
    Raises:
        ValueError: adapter and model do not fit.
        OSError: it cannot be written.
    """
    from transformers import AutoTokenizer

    source = read_adapter(adapter)
    refuse_base_changes(source)
    with new_folder(Path(out)) as draft:
        merged: Any = load_base(model, source)
        add_updates(source, merged)
        try:
            merged.save_pretrained(draft)
        except SafetensorError as full:  # its word for a disk that takes no more
            raise OSError(errno.EIO, f"the model cannot be written ({full})", str(out)) from full
        del merged
        notes: tuple[str, ...] = ()
        try:
            tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        except (OSError, ValueError):
            notes = ("the base model has no tokenizer beside it, so none was saved",)
        else:
            tokenizer.save_pretrained(draft)
        error, norm = _compare(source, load_base(model, source), load_base(str(draft), source), draft)
    return Written(
        Path(out), f"{model} with {source.folder.name} merged into it", error, error / norm if norm else 0.0, notes
    )


@torch.no_grad()
def _compare(source: Adapter, base: torch.nn.Module, merged: torch.nn.Module, folder: Path) -> tuple[float, float]:
    """The norm of what rounding changed, and of the change to the weights; anything beyond rounding is refused."""
    expected, new = base.state_dict(), merged.state_dict()
    for key, value in carried_weights(source):
        expected[key].copy_(value)
    lost = total = 0.0
    touched = set()
    for name, module in source.modules.items():
        W = weight_matrix(base.get_submodule(name))
        want, got = merged_weight(source, module, W), weight_matrix(merged.get_submodule(name)).double()
        eps = torch.finfo(W.dtype).eps
        if not torch.allclose(got, want, rtol=eps, atol=eps * float(want.abs().max())):
            raise OSError(errno.EIO, f"what was written for {name} differs from what was meant", str(folder))
        lost += float((got - want).square().sum())
        total += float((want - W.double()).square().sum())
        touched |= {f"{name}.weight", *(f"{name}.bias" for _ in module.attached)}
    for key in expected.keys() - touched:
        if not torch.equal(new[key], expected[key]):
            raise OSError(errno.EIO, f"what was written for {key} differs from what was meant", str(folder))
    return lost**0.5, total**0.5
