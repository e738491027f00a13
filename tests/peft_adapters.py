"""Adapters that PEFT itself writes for tiny random transformers, for all tests of adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, get_peft_model
from tiny_models import tiny_config
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from rankopt.adapters.adapter import read_adapter

FAMILIES: dict[str, tuple[Any, Any]] = {
    "roberta": (
        AutoModelForSequenceClassification,
        tiny_config("roberta", vocab_size=50, num_labels=3, pad_token_id=1),
    ),
    "gpt2": (AutoModelForSequenceClassification, tiny_config("gpt2", vocab_size=50, num_labels=3, pad_token_id=1)),
    "llama": (
        AutoModelForCausalLM,
        tiny_config("llama", vocab_size=50, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False),
    ),
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("roberta", {"target_modules": ["query", "value"]}),
    "rank and alpha patterns": (
        "roberta",
        {
            "target_modules": ["query", "key", "dense"],
            "rank_pattern": {"query": 2, r"layer\.1\.attention.output.dense": 5},
            "alpha_pattern": {"key": 3, "1.intermediate.dense": 20},
        },
    ),
    "rsLoRA": ("roberta", {"target_modules": ["query", "value"], "use_rslora": True, "rank_pattern": {"query": 2}}),
    "fan_in_fan_out": ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "modules_to_save": ("gpt2", {"target_modules": ["c_attn"], "modules_to_save": ["score", "ln_f"]}),
    "embeddings": ("llama", {"target_modules": ["embed_tokens", "q_proj", "down_proj", "lm_head"]}),
    "all of Llama": ("llama", {"target_modules": "all-linear", "use_rslora": True}),
    "a regular expression": ("llama", {"target_modules": r".*layers\.[01]\.mlp\.(up|down)_proj"}),
    "some layers": ("llama", {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1]}),
    "lora_bias": ("roberta", {"target_modules": ["query", "value"], "lora_bias": True}),
    "DoRA": ("roberta", {"target_modules": ["query", "dense"], "use_dora": True}),
    "AdaLoRA": ("roberta", {"peft_type": "ADALORA", "target_modules": ["query", "value"]}),
}


def build(family: str) -> PreTrainedModel:
    """The base model of a family, with fixed random weights."""
    kind, config = FAMILIES[family]
    torch.manual_seed(0)
    model: PreTrainedModel = kind.from_config(config)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    return model.eval()


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """The logits of a model on a fixed batch."""
    ids = torch.randint(2, 50, (4, 9), generator=torch.Generator().manual_seed(7))
    answer: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return answer


def make_adapter(case: str, folder: Path, seed: int = 1) -> tuple[str, Any]:
    """Write the adapter of a case with random factors of decreasing size; returns its family and the PEFT model."""
    family, options = CASES[case]
    options = {"r": 4, "lora_alpha": 6, **options}
    if options.pop("peft_type", "LORA") == "ADALORA":
        options.pop("r")
        config: Any = AdaLoraConfig(init_r=4, target_r=2, total_step=10, tfinal=2, **options)
    else:
        config = LoraConfig(**options)
    if family != "llama":
        config.task_type = "SEQ_CLS"
    else:
        config.task_type = "CAUSAL_LM"
    model = get_peft_model(build(family), config).eval()
    randomise(model, seed)
    model.save_pretrained(str(folder))
    return family, model


@torch.no_grad()
def randomise(model: Any, seed: int) -> None:
    """Random factors; component i is about 0.6^i as large as the first."""
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name and "magnitude" not in name and "ranknum" not in name:
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.3)
        if "lora_magnitude" in name:
            parameter.mul_(1 + 0.2 * torch.rand(parameter.shape, generator=draw))
        if "modules_to_save" in name:
            parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.3)
        if ("lora_B" in name or "lora_embedding_B" in name) and parameter.ndim == 2:
            parameter.mul_(0.6 ** torch.arange(parameter.shape[1]))


def load(family: str, folder: Path) -> Any:
    """A fresh base model with the adapter, loaded by PEFT."""
    return PeftModel.from_pretrained(build(family), str(folder)).eval()


def dense(folder: Path) -> dict[str, Tensor]:
    """Every module's update as a dense matrix."""
    adapter = read_adapter(folder)
    return {
        name: module.scale * adapter.factors(name).B @ adapter.factors(name).A
        for name, module in adapter.modules.items()
    }
