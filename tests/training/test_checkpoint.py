"""A checkpoint is whole or absent; a damaged one is named, with what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rankopt.training.checkpoint import ADAPTER, SEAL, latest, load_network, save_network, seal


def checkpoint(folder: Path, step: int, *, sealed: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    torch.save({"step": step}, path / ADAPTER)
    (path / "trainer_state.json").write_text("{}")
    if sealed:
        seal(path)
    return path


def test_the_newest_by_number(tmp_path: Path) -> None:
    """10 is newer than 9: by number, not by name; none at all is None, also before the folder exists."""
    assert latest(tmp_path / "nowhere") is None
    for step in (9, 10, 2):
        checkpoint(tmp_path, step)
    assert latest(tmp_path) == tmp_path / "checkpoint-10"
    assert torch.load(tmp_path / "checkpoint-10" / ADAPTER, weights_only=True) == {"step": 10}


def test_an_unsealed_one_never_was(tmp_path: Path) -> None:
    """A kill while writing leaves no seal: the folder is removed and the one before it counts; a seal half written is
    a draft under another name."""
    checkpoint(tmp_path, 5)
    torn = checkpoint(tmp_path, 6, sealed=False)
    (torn / (SEAL + ".draft")).write_text('{"adap')
    assert latest(tmp_path) == tmp_path / "checkpoint-5"
    assert not torn.exists()


def test_a_folder_of_another_name_is_left_alone(tmp_path: Path) -> None:
    """A copy that a user made is neither taken for a checkpoint nor deleted."""
    checkpoint(tmp_path, 5)
    for name in ("checkpoint-abc", "checkpoint-5-copy", "checkpoint-"):
        (tmp_path / name).mkdir()
    assert latest(tmp_path) == tmp_path / "checkpoint-5"
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "seal", "seal-bytes", "seal-list", "seal-empty"])
def test_a_damaged_one_is_one_line(tmp_path: Path, damage: str) -> None:
    """A flipped bit, a cut or missing file and a mangled seal are each refused in one line: which folder, which file,
    what to do, and where the trial would then continue. Nothing is deleted."""
    checkpoint(tmp_path, 5)
    path = checkpoint(tmp_path, 10)
    file = path / "adapter.pt"
    content = bytearray(file.read_bytes())
    match damage:
        case "flip":
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        case "truncate":
            file.write_bytes(content[:-1])
        case "remove":
            file.unlink()
        case "seal":
            (path / SEAL).write_text('{"adapter.pt": ')
        case "seal-bytes":
            (path / SEAL).write_bytes(b"\xff\xfe\x00")
        case "seal-empty":
            file = path / SEAL
            file.write_text("{}")
        case "seal-list":
            (path / SEAL).write_text("[]")
    with pytest.raises(OSError, match="is corrupt") as caught:
        latest(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert ("seal.json" if damage.startswith("seal") else "adapter.pt") in message
    assert "delete this folder and run again" in message
    assert "continues from step 5" in message
    assert file.exists() or damage == "remove"
    (tmp_path / "checkpoint-5" / SEAL).unlink()
    with pytest.raises(OSError, match="continues from the start"):
        latest(tmp_path)


def test_loading_runs_nothing(tmp_path: Path) -> None:
    """A pickle that would run code is refused: weights only."""

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path("boom"),))  # type: ignore[return-value]

    torch.save({"x": Bomb()}, tmp_path / ADAPTER)
    with pytest.raises(Exception, match="Weights only"):
        load_network(SimpleNamespace(net=torch.nn.Linear(1, 1)), tmp_path)  # type: ignore[arg-type]


def test_a_network_is_restored(prepare: Callable[[Any], Any], tiny_spec: Any, tmp_path: Path) -> None:
    """Factors, gates, masks and head return to their saved values, and other content is returned."""
    adapted = prepare(tiny_spec(allocator__name="adalora")).adapted
    layer = next(iter(adapted.layers.values()))
    tensors = [layer.A, layer.B, layer.g, layer.m, adapted.net.classifier.weight]
    before, rank = [tensor.clone() for tensor in tensors], layer.rank
    save_network(adapted, tmp_path / "saved", step=3)
    with torch.no_grad():
        for tensor in (layer.A, layer.B, layer.g, adapted.net.classifier.weight):
            tensor.add_(1.0)
    layer.keep(0)
    assert load_network(adapted, tmp_path / "saved")["step"] == 3
    assert layer.rank == rank
    assert all(torch.equal(tensor, value) for tensor, value in zip(tensors, before, strict=True))
