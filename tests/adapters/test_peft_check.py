"""Rewritten adapters have targets with which PEFT expects exactly the written tensors, or they are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import tiny_config
from transformers import AutoModelForCausalLM

import rankopt
from rankopt.adapters.adapter import read_adapter
from rankopt.adapters.convert import convert
from rankopt.adapters.merge import merge_adapters
from rankopt.adapters.peft_check import base_model_type, readable_targets

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def configure(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / CONFIG).read_text()) | fields
    (folder / CONFIG).write_text(json.dumps(config))


def mixture(folder: Path | None = None) -> Any:
    """A Qwen3 MoE whose first block is dense, with `gate_proj`, `up_proj` and `down_proj` as linear maps."""
    torch.manual_seed(0)
    config = tiny_config(
        "qwen3_moe", vocab_size=50, num_key_value_heads=2, head_dim=8, num_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=16, mlp_only_layers=[0],
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    if folder:
        model.save_pretrained(folder)
    return model


TARGETS = [["q_proj", "v_proj"], r".*\.(q|v)_proj", [f"layers.{layer}.self_attn.q_proj" for layer in (0, 1)]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("targets", TARGETS, ids=str)
@pytest.mark.parametrize("amount", [{"ratio": 0.4}, {"energy": 1.0}, {"rank": 1, "uniform": True}], ids=str)
def test_mixtures_of_experts(targets: Any, amount: dict[str, Any], tmp_path: Path, stock: Any) -> None:
    """On these models PEFT widens an expression to all modules of the same last name; a list is exact."""
    mixture(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = get_peft_model(base, LoraConfig(r=3, target_modules=targets, task_type="CAUSAL_LM")).eval()
    stock.randomise(model, 1)
    with torch.no_grad():  # so that small sizes drop modules of the first block
        for name, parameter in model.named_parameters():
            if "lora_B" in name and "layers.0" in name:
                parameter.mul_(1e-3)
    model.save_pretrained(str(tmp_path / "a"))
    assert base_model_type(read_adapter(tmp_path / "a")) == "qwen3_moe"
    done = rankopt.compress(tmp_path / "a", tmp_path / "b", **amount)
    loaded = PeftModel.from_pretrained(mixture(), str(tmp_path / "b"))
    adapted = {
        name.removeprefix("base_model.model.") for name, module in loaded.named_modules() if hasattr(module, "lora_A")
    }
    assert adapted == {name for name, cut in done.cuts.items() if cut.kept}
    if amount == {"energy": 1.0}:
        torch.testing.assert_close(stock.logits(loaded.eval()), stock.logits(model), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tool", ["compress", "merge", "convert"])
def test_names_that_peft_takes_for_experts(tool: str, tmp_path: Path, adapter_of: Callable[..., Path]) -> None:
    """An adapter on `gate_proj` of a dense block: PEFT would drop these tensors, so nothing is written."""
    mixture(tmp_path / "base")
    folder = adapter_of("all of Llama")
    if tool != "convert":
        configure(folder, use_rslora=False)
    configure(folder, base_model_name_or_path=str(tmp_path / "base"))
    run: dict[str, Callable[[], Any]] = {
        "compress": lambda: rankopt.compress(folder, tmp_path / "b", energy=0.9),
        "merge": lambda: merge_adapters([folder, folder], tmp_path / "b"),
        "convert": lambda: convert(folder, tmp_path / "b"),
    }
    with pytest.raises(ValueError, match=r"PEFT would not load .* on a qwen3_moe model it takes such names") as caught:
        run[tool]()
    assert str(caught.value).startswith(f"{folder}: ")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "b").exists()
    assert rankopt.spectrum(folder).modules


def test_the_base_may_be_elsewhere(adapter_of: Callable[..., Path]) -> None:
    """Without the base model's config, the targets alone are checked."""
    folder = adapter_of("plain")
    for base in (None, "", "user/unknown-model", "/no/such/folder", "a\\b"):
        configure(folder, base_model_name_or_path=base)
        source = read_adapter(folder)
        assert base_model_type(source) is None
        fields = readable_targets(source, source.modules, source.stored, {"r": 4})
        assert fields["target_modules"] == ["query", "value"] or set(fields["target_modules"]) == {"query", "value"}


@pytest.mark.timeout(60)
def test_a_hostile_base_model_path(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """The config of the named base model is read at most, not followed to a device, and its code is not run."""
    folder, mark = adapter_of("plain"), tmp_path / "mark"
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").symlink_to("/dev/zero")
    configure(folder, base_model_name_or_path=str(tmp_path / "base"))
    assert base_model_type(read_adapter(folder)) is None
    (tmp_path / "base" / "config.json").unlink()
    (tmp_path / "base" / "config.json").write_text("[" * 100_000)
    assert base_model_type(read_adapter(folder)) is None
    (tmp_path / "base" / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    config = {"model_type": "roberta", "auto_map": {"AutoConfig": "evil.Config"}}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    configure(folder, auto_mapping={"base_model_class": "Evil", "parent_library": "evil"})
    rankopt.compress(folder, tmp_path / "b", energy=0.5)
    assert not mark.exists()


def test_the_own_targets_are_kept_or_replaced(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """Targets that select exactly the stored modules stay; others are replaced by full names."""
    folder = adapter_of("plain")
    rankopt.compress(folder, tmp_path / "b", energy=1.0)
    assert sorted(json.loads((tmp_path / "b" / CONFIG).read_text())["target_modules"]) == ["query", "value"]
    configure(folder, target_modules=["key"])
    rankopt.compress(folder, tmp_path / "c", energy=1.0)
    assert set(json.loads((tmp_path / "c" / CONFIG).read_text())["target_modules"]) == set(read_adapter(folder).modules)


def test_names_that_no_module_can_have(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """A hostile name such as `forward` is refused in one line."""
    folder = adapter_of("plain")
    tensors = load_file(folder / WEIGHTS)
    save_file({key.replace("self.query", "forward"): value for key, value in tensors.items()}, folder / WEIGHTS)
    with pytest.raises(ValueError, match="cannot be the name of a module"):
        rankopt.compress(folder, tmp_path / "b", energy=0.5)
    assert not (tmp_path / "b").exists()
