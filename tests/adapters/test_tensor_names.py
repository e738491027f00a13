"""Tensor names with wrapper parts, a doubled or missing prefix, or an adapter's name: repaired, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import rankopt
from rankopt.adapters.adapter import read_adapter
from rankopt.adapters.convert import convert
from rankopt.adapters.merge import merge_adapters
from rankopt.adapters.merge_into_base import merge_into_base

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
Rename = Callable[[str], str]

REPAIRED: dict[str, tuple[Rename, str]] = {
    "torch.compile in front": (lambda key: f"_orig_mod.{key}", "removed '_orig_mod.' from tensor names"),
    "torch.compile inside": (lambda key: key.replace(PREFIX, f"{PREFIX}_orig_mod."), "removed '_orig_mod.'"),
    "torch.compile of blocks": (
        lambda key: key.replace(".attention.", "._orig_mod.attention."),
        "removed '_orig_mod.'",
    ),
    "FSDP": (lambda key: key.replace(PREFIX, f"{PREFIX}_fsdp_wrapped_module."), "removed '_fsdp_wrapped_module.'"),
    "checkpointing": (
        lambda key: key.replace(".attention.", "._checkpoint_wrapped_module.attention."),
        "removed '_checkpoint_wrapped_module.'",
    ),
    "DataParallel": (lambda key: f"module.{key}", "removed 'module.' from the beginning of tensor names"),
    "DataParallel and torch.compile": (lambda key: f"module._orig_mod.{key}", "removed 'module.'"),
    "a doubled prefix": (lambda key: PREFIX + key, "removed the second 'base_model.model.'"),
    "no prefix": (lambda key: key.removeprefix(PREFIX), "added the missing 'base_model.model.'"),
    "the adapter's name": (
        lambda key: key.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default."),
        "removed the adapter's name 'default' from tensor names",
    ),
    "a state dict": (
        lambda key: (
            key.replace(".weight", ".default.weight")
            if ".lora_" in key
            else key.replace("classifier.", "classifier.modules_to_save.default.")
        ),
        "removed the adapter's name 'default'",
    ),
}


def rename(folder: Path, change: Rename) -> None:
    save_file({change(key): value for key, value in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)


@pytest.mark.parametrize("case", REPAIRED)
def test_repaired_everywhere(case: str, adapter_of: Callable[..., Path], tmp_path: Path, stock: Any) -> None:
    """Analyze, compress, merge and convert read such a file like PEFT's own file, and say what was repaired."""
    change, note = REPAIRED[case]
    good, bad = adapter_of("plain", name="good"), adapter_of("plain", name="bad")
    rename(bad, change)
    expected = stock.logits(stock.load("roberta", good))
    base = stock.logits(stock.build("roberta"))
    assert (expected - base).abs().max() > 0.01, "the test could not fail"
    assert set(rankopt.spectrum(bad).modules) == set(rankopt.spectrum(good).modules)
    assert note in " ".join(rankopt.spectrum(bad).to_json()["repairs"])

    assert note in " ".join(rankopt.compress(bad, tmp_path / "small", energy=1.0).notes)
    assert note in " ".join(convert(bad, tmp_path / "plain").notes)
    assert note in " ".join(merge_adapters([bad, bad], tmp_path / "sum", weights=[0.5, 0.5]).notes)
    for out in ("small", "plain", "sum"):
        loaded = stock.load("roberta", tmp_path / out)
        torch.testing.assert_close(stock.logits(loaded), expected, atol=1e-5, rtol=1e-5)
    stock.build("roberta").save_pretrained(tmp_path / "base")
    assert note in " ".join(merge_into_base(bad, str(tmp_path / "base"), tmp_path / "merged").notes)
    merged = type(stock.build("roberta")).from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(stock.logits(merged), expected, atol=1e-5, rtol=1e-5)


def test_targets_with_wrapper_parts(adapter_of: Callable[..., Path], tmp_path: Path, stock: Any) -> None:
    """A config that was written for the wrapped model gets targets of the unwrapped one."""
    import json

    folder = adapter_of("plain")
    expected = stock.logits(stock.load("roberta", folder))
    names = [f"_orig_mod.{name}" for name in read_adapter(folder).modules]
    rename(folder, lambda key: key.replace(PREFIX, f"{PREFIX}_orig_mod."))
    config = json.loads((folder / "adapter_config.json").read_text()) | {"target_modules": names}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    convert(folder, tmp_path / "b")
    torch.testing.assert_close(stock.logits(stock.load("roberta", tmp_path / "b")), expected, atol=1e-5, rtol=1e-5)


REFUSED: dict[str, tuple[Rename, str]] = {
    "module inside": (lambda key: key.replace(PREFIX, f"{PREFIX}module."), "save the adapter from the unwrapped model"),
    "module without prefix": (lambda key: key.replace(PREFIX, "module."), "may belong to a wrapper or to the model"),
    "half a prefix": (lambda key: key.replace(PREFIX, "base_model."), "may belong to a wrapper or to the model"),
    "two adapters": (
        lambda key: key.replace(".lora_A.", ".lora_A.one.").replace(".lora_B.", ".lora_B.two."),
        r"must hold one adapter, got 'one' and 'two'; save each with save_pretrained\(FOLDER, selected_adapters",
    ),
    "empty parts": (lambda key: key.replace(".encoder.", "..encoder."), "must be letters, digits, dots and dashes"),
    "a path": (lambda key: key.replace(".encoder.", "/../encoder."), "must be letters, digits, dots and dashes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case: str, adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = adapter_of("plain")
    change, message = REFUSED[case]
    rename(folder, change)
    for run in (
        lambda: rankopt.spectrum(folder),
        lambda: rankopt.compress(folder, tmp_path / "b", energy=0.5),
        lambda: convert(folder, tmp_path / "b"),
        lambda: merge_into_base(folder, "nowhere", tmp_path / "b"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            run()
        assert str(caught.value).startswith(f"{folder}: ")
        assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "b").exists()
