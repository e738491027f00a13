"""What PEFT expects of an adapter, on ordinary and on mixture-of-experts models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tiny_models import tiny_config
from transformers import AutoModelForSequenceClassification

from rankopt.lowrank.export import CONFIG, WEIGHTS, cut_peft, export_peft
from rankopt.lowrank.inject import inject, target_names
from rankopt.lowrank.layers import apply_pattern, pattern_of
from rankopt.lowrank.peft_loader import expected_tensors, ignored_targets, weightless
from rankopt.lowrank.scale import Scale

EXPERTS: dict[str, dict[str, Any]] = {
    "deepseek_v3": {
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "q_lora_rank": 8,
        "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "first_k_dense_replace": 1,
        "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "num_key_value_heads": 2,
    },
    "qwen3_moe": {
        "num_key_value_heads": 2, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 16, "mlp_only_layers": [0],
    },
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2},
}  # fmt: skip


def mixture(family: str) -> Any:
    torch.manual_seed(0)
    config = tiny_config(family, vocab_size=50, num_labels=3, pad_token_id=1, **EXPERTS[family])
    return AutoModelForSequenceClassification.from_config(config).eval()


def test_the_tensors_that_peft_saves(family: str, build: Callable[..., Any], tmp_path: Path) -> None:
    """The names are those of an adapter that PEFT saves, and the model does not change."""
    target = "c_attn" if family == "gpt2" else "dense"
    config = LoraConfig(r=2, task_type="SEQ_CLS", target_modules=[target])
    model = build(family)
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    expected = expected_tensors({"r": 2, "task_type": "SEQ_CLS", "target_modules": [target]}, model)
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before
    get_peft_model(build(family), config).save_pretrained(str(tmp_path))
    assert expected == set(load_file(tmp_path / WEIGHTS))


def test_a_weightless_copy_has_no_adapters(build: Callable[..., Any]) -> None:
    model = build("bert")
    names = [name for name, _ in model.named_modules()]
    inject(model, target_names(model, ["query"]), 2, Scale("unit", 1.0))
    bare = weightless(model)
    assert [name for name, _ in bare.named_modules()] == names
    assert all(parameter.is_meta for parameter in bare.parameters())
    assert not any(parameter.is_meta for parameter in model.parameters())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", EXPERTS)
def test_ignored_targets(family: str) -> None:
    """PEFT adapts all linear maps but those that it takes for fused experts."""
    model = mixture(family)
    names = [name for name, module in model.named_modules() if type(module).__name__ == "Linear" and name != "score"]
    ignored = ignored_targets(model, names)
    expected = {"deepseek_v3": 6, "qwen3_moe": 3, "mixtral": 0}[family]
    assert len(ignored) == expected
    assert {name.rpartition(".")[2] for name in ignored} <= {"gate_proj", "up_proj", "down_proj"}
    adapted = get_peft_model(model, LoraConfig(target_modules=[name for name in names if name not in ignored]))
    assert sum(hasattr(module, "lora_A") for module in adapted.modules()) == len(names) - expected


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", EXPERTS)
@pytest.mark.parametrize("cut", [False, True])
def test_exports_of_mixtures_load_in_peft(family: str, cut: bool, answer: Any, tmp_path: Path) -> None:
    """`all-linear` leaves out what PEFT cannot load, so PEFT computes the same logits, also from reduced adapters."""
    model = mixture(family)
    layers = inject(model, target_names(model, "all-linear", ["score"]), 3, Scale("unit", 1.0))
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in layers.values():
            layer.open(3)
            layer.A.normal_(0, 0.3)
            layer.B.normal_(0, 0.3)
    export_peft(layers, model, tmp_path, head=["score"])
    if cut:
        ranks = {name: index % 4 for index, name in enumerate(layers)}
        apply_pattern(layers, type(pattern_of(layers))(ranks))
        cut_peft(tmp_path, ranks)
    loaded = PeftModel.from_pretrained(mixture(family), str(tmp_path)).eval()
    model.config.pad_token_id = loaded.config.pad_token_id = 1
    assert (answer(mixture(family)) - answer(model)).abs().max() > 0.01, "the test could not fail"
    torch.testing.assert_close(answer(loaded), answer(model), atol=1e-4, rtol=1e-4)


def test_named_targets_are_refused() -> None:
    """A list or an expression that names such a module is refused before training."""
    for targets in (["up_proj", "q_a_proj"], r".*layers\.0\.mlp\.(gate|up|down)_proj"):
        with pytest.raises(ValueError, match=r"model\.target_modules must leave out 'model\.layers\.0\.mlp\..*_proj'"):
            target_names(mixture("deepseek_v3"), targets, ["score"])


def test_an_export_that_peft_would_not_load(tmp_path: Path) -> None:
    """An export is compared with what PEFT expects, and nothing is written if they differ."""
    model = mixture("deepseek_v3")
    layers = inject(
        model, [f"model.layers.0.mlp.{part}_proj" for part in ("gate", "up", "down")], 2, Scale("unit", 1.0)
    )
    for layer in layers.values():
        layer.open(2)
    with pytest.raises(ValueError, match="PEFT would not load this adapter correctly"):
        export_peft(layers, model, tmp_path / "a", head=["score"])
    assert not (tmp_path / "a" / CONFIG).exists()
