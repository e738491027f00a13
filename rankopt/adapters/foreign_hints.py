"""Adapters that are not in PEFT's format: which format it is, and how to get from there to PEFT's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from rankopt.lowrank.files import CONFIG, WEIGHTS

PICKLED = "adapter_model.bin"
LISTED = 5
"""Most subfolders that a message lists."""
TORCHTUNE = (
    "torchtune's format: its FullModelHFCheckpointer also writes PEFT's two files; use them, or rankopt convert with "
    "--model"
)


def foreign_file(folder: Path, missing: str) -> str:
    """What to do about a missing file, from what the folder holds instead; empty if nothing is recognised."""
    if missing == WEIGHTS and (folder / PICKLED).is_file():
        return f"; rankopt convert {folder} --out DIR reads its pickled {PICKLED} without running code from it"
    if (folder / "adapters.safetensors").is_file() or (folder / "adapters.npz").is_file():
        return f"; it is in MLX's format: rankopt convert {folder} --out DIR reads it"
    if any(islice(folder.glob("adapter_[0-9]*.pt"), 1)):
        return f"; it is in {TORCHTUNE}"
    if missing == CONFIG and (below := sorted(islice(_adapters_below(folder), LISTED + 1))):
        more = ", ..." if len(below) > LISTED else ""
        return f"; name one of the adapters in it: {', '.join(map(str, below[:LISTED]))}{more}"
    return ""


def foreign_tensor(name: str) -> str:
    """What to do about a LoRA tensor that PEFT does not have; empty if the format is not recognised."""
    if ".lora_down." in name or ".lora_up." in name:
        return "; it is a name of kohya's scripts or diffusers: rankopt convert reads the file that they wrote"
    if name.endswith((".lora_a", ".lora_b")):
        return "; it is a name of MLX: rankopt convert reads the folder that mlx-lm wrote"
    if name.endswith((".lora_a.weight", ".lora_b.weight")):
        return f"; it is in {TORCHTUNE}"
    return ""


def _adapters_below(folder: Path) -> Iterator[Path]:
    for depth in ("*", "*/*"):
        yield from (path.parent for path in folder.glob(f"{depth}/{CONFIG}"))
