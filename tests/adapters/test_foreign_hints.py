"""Folders and files that are not PEFT's: the message names the format or the adapters, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import rankopt

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MLX = "; it is a name of MLX: rankopt convert reads the folder that mlx-lm wrote"
TORCHTUNE = "; it is in torchtune's format: its FullModelHFCheckpointer also writes PEFT's two files"


def mlx(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapters.safetensors")
    (folder / CONFIG).write_text('{"fine_tune_type": "lora", "lora_parameters": {"rank": 4, "scale": 20.0}}')


def tensors(folder: Path, *names: str) -> None:
    save_file({f"model.layers.0.self_attn.q_proj.{name}": torch.ones(4, 4) for name in names}, folder / WEIGHTS)


def torchtune(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "adapter_0.pt").write_bytes(b"x")


FOREIGN: dict[str, tuple[Callable[[Path], None], str]] = {
    "MLX": (mlx, "; it is in MLX's format: rankopt convert .* --out DIR reads it"),
    "MLX tensors": (lambda f: tensors(f, "lora_a", "lora_b"), MLX),
    "torchtune": (torchtune, TORCHTUNE),
    "torchtune tensors": (lambda f: tensors(f, "lora_a.weight", "lora_b.weight"), TORCHTUNE),
    "kohya tensors": (
        lambda f: tensors(f, "lora_down.weight", "lora_up.weight"),
        "kohya's scripts or diffusers: rankopt",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_other_formats(case: str, adapter_of: Callable[..., Path]) -> None:
    folder = adapter_of("plain")
    change, message = FOREIGN[case]
    change(folder)
    with pytest.raises(ValueError, match=message) as caught:
        rankopt.spectrum(folder)
    assert str(caught.value).startswith(f"{folder}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_of_checkpoints(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """The adapters in it are named, the first five of them."""
    run = tmp_path / "run"
    for step in range(1, 4):
        adapter_of("plain", name=f"run/checkpoint-{step}00")
    with pytest.raises(ValueError, match="must have adapter_config") as caught:
        rankopt.spectrum(run)
    named = str(caught.value).partition("; name one of the adapters in it: ")[2]
    assert named.split(", ") == [str(run / f"checkpoint-{step}00") for step in range(1, 4)]
    for step in range(4, 8):
        adapter_of("plain", name=f"run/checkpoint-{step}00")
    with pytest.raises(ValueError, match=r"name one of the adapters in it: (\S+, ){5}\.\.\.$"):
        rankopt.spectrum(run)
