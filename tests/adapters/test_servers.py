"""What servers read: their scales give PEFT's updates, and what they do not read is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import rankopt
from rankopt.adapters.adapter import read_adapter
from rankopt.adapters.servers import SERVERS, check_as_read

FILE = "adapter_model.safetensors"


def headless(folder: Path) -> Path:
    """The adapter without the classifier's head, as one of a language model has none."""
    save_file({key: value for key, value in load_file(folder / FILE).items() if ".lora_" in key}, folder / FILE)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"modules_to_save": None, "task_type": None}))
    return folder


def as_served(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Every update as a server computes it, from the two files alone."""
    config, tensors = json.loads((folder / "adapter_config.json").read_text()), load_file(folder / FILE)
    found = {}
    for key, A in tensors.items():
        if key.endswith("lora_A.weight"):
            B = tensors[key.replace("lora_A", "lora_B")]
            assert len(A) <= config["r"]
            if name == "sglang":
                assert len(A) == config["r"]
            scale = config["lora_alpha"] / (B.shape[1] if name == "llama.cpp" else config["r"])
            found[key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")] = scale * (B @ A).double()
    return found


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("case", ["rank and alpha patterns", "rsLoRA", "all of Llama"])
def test_a_server_reads_pefts_updates(
    name: str, case: str, adapter_of: Callable[..., Path], tmp_path: Path, stock: Any
) -> None:
    """Computed by the server's rule and by PEFT's, updates agree; full energy keeps the original's."""
    source = headless(adapter_of(case))
    done = rankopt.compress(source, tmp_path / "small", energy=0.8, server=name)
    served, peft = as_served(tmp_path / "small", name), stock.dense(tmp_path / "small")
    assert served.keys() == peft.keys()
    for module, update in peft.items():
        torch.testing.assert_close(served[module], update, atol=1e-5, rtol=1e-4)
    assert any(str(tmp_path / "small") in line for line in done.command)
    rankopt.compress(source, tmp_path / "whole", energy=1.0, server=name)
    whole, before = as_served(tmp_path / "whole", name), stock.dense(source)
    for module, update in before.items():
        torch.testing.assert_close(whole[module], update, atol=1e-5, rtol=1e-4)


def test_one_shared_scale_keeps_mixed_ranks_and_bits(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """For vLLM, modules that are kept whole keep their bits where all modules share one scale."""
    source = headless(adapter_of("plain"))
    done = rankopt.compress(source, tmp_path / "small", ratio=0.9, server="vllm")
    assert len({cut.kept for cut in done.cuts.values()}) > 1
    old, new = load_file(source / FILE), load_file(tmp_path / "small" / FILE)
    whole = [name for name, cut in done.cuts.items() if cut.kept == cut.rank]
    assert whole
    assert all(torch.equal(old[key], new[key]) for key in new if any(f".{name}.lora_" in key for name in whole))


def test_limits() -> None:
    """`--max-lora-rank` is the smallest allowed value."""
    assert [SERVERS["vllm"].limit(rank) for rank in (1, 8, 9, 300)] == [8, 8, 16, 320]
    assert SERVERS["sglang"].limit(5) == 5
    with pytest.raises(ValueError, match="vllm serves ranks up to 512, got 600"):
        SERVERS["vllm"].limit(600)


def test_double_precision_is_stored_in_single(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    source = headless(adapter_of("plain"))
    save_file({key: value.double() for key, value in load_file(source / FILE).items()}, source / FILE)
    rankopt.compress(source, tmp_path / "small", rank=2, server="vllm")
    assert {tensor.dtype for tensor in load_file(tmp_path / "small" / FILE).values()} == {torch.float32}


@pytest.mark.parametrize(
    ("case", "part"),
    [("DoRA", "DoRA"), ("lora_bias", "a trained bias"), ("modules_to_save", "which was trained in full beside LoRA")],
)
def test_refused(case: str, part: str, adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"vllm does not read .*{part}.*rankopt merge"):
        rankopt.compress(adapter_of(case), tmp_path / "small", rank=1, server="vllm")
    assert not (tmp_path / "small").exists()


def test_an_adapter_that_a_server_reads_wrongly(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """The check finds other scales and other ranks."""
    with pytest.raises(ValueError, match=r"--for must be one of vllm, sglang, llama\.cpp, got 'vlm'; did you mean"):
        rankopt.compress(adapter_of("plain"), tmp_path / "b", rank=1, server="vlm")
    mixed = read_adapter(adapter_of("rank and alpha patterns", name="mixed"))
    with pytest.raises(ValueError, match=r"vllm would read .* with the scale"):
        check_as_read(replace(mixed, config=mixed.config.model_copy(update={"r": 5})), SERVERS["vllm"])
    with pytest.raises(ValueError, match="r must be the largest rank 5 for sglang, got 4"):
        check_as_read(mixed, SERVERS["sglang"])
