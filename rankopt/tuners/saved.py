"""Read back what a trial's tuners saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from rankopt.tuners.adapter import CONFIG, WEIGHTS
from rankopt.tuners.base import Attached
from rankopt.tuners.bottleneck import insert

PEFT_CONFIG = "adapter_config.json"


def save_all(attached: Mapping[str, Attached], folder: Path) -> None:
    """Save the first tuner to a folder, and each further one to a folder inside it that has its name."""
    for number, (name, one) in enumerate(attached.items()):
        one.save(folder / name if number else folder)


def load(net: Any, folder: Path) -> nn.Module:
    """A base model with everything that a trial's folder holds.

    Of several tuners, LoRA is merged first, since PEFT puts no prompt on top of it.

    Args:
        net: the base model, changed in place; for a folder with a whole checkpoint use transformers instead.
        folder: an exported one.
    Raises:
        ValueError: the folder has no tuner.
    """
    inner = sorted(path for path in folder.iterdir() if path.is_dir())
    if (folder / PEFT_CONFIG).is_file():
        from peft import PeftModel  # slow to import

        net = PeftModel.from_pretrained(net, str(folder))
        net = net.merge_and_unload() if inner else net
    elif (folder / CONFIG).is_file():
        _load_adapters(net, folder)
    else:
        raise ValueError(f"{folder} must hold {PEFT_CONFIG} or {CONFIG}; load a checkpoint with from_pretrained")
    for path in inner:
        net = load(net, path)
    loaded: nn.Module = net
    return loaded


def _load_adapters(net: Any, folder: Path) -> None:
    fields = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    tensors = load_file(folder / WEIGHTS)
    for name, adapter in insert(net, fields["head"], fields["kind"], fields["width"]).items():
        for part, module in (("down", adapter.down), ("up", adapter.up)):
            module.load_state_dict({key: tensors.pop(f"{name}.{part}.{key}") for key in ("weight", "bias")})
    for part in fields["head"]:
        module = net.get_submodule(part)
        module.load_state_dict({key: tensors[f"{part}.{key}"] for key in module.state_dict()})
