"""Target modules of four model families, and errors for wrong targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import tiny_config
from torch import nn
from transformers import AutoModelForSequenceClassification

from rankopt.lowrank.inject import inject, linear_names, target_names
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale

UNIT = Scale("unit", 1.0)


@pytest.fixture
def bert(build: Any) -> Any:
    return build("bert")


def test_all_linear_is_every_linear_map_of_the_blocks(family: str, build: Any, heads: Any) -> None:
    """Every linear map (also Conv1D) except head and pooler, in the model's order."""
    model = build(family)
    names = target_names(model, "all-linear", heads[family])
    linear = [n for n, m in model.named_modules() if type(m).__name__ in ("Linear", "Conv1D")]
    expected = [n for n in linear if n.split(".")[0] not in heads[family] and "pooler" not in n]
    assert names == expected
    assert len(names) == {"bert": 12, "roberta": 12, "deberta": 12, "gpt2": 8}[family]
    assert all(".0." in n or ".1." in n for n in names)


def test_a_list_means_what_peft_means(family: str, build: Any, heads: Any) -> None:
    """Whole names or endings after a dot select the same modules as in PEFT."""
    targets = {
        "bert": ["query", "output.dense", "bert.encoder.layer.1.attention.self.value"],
        "roberta": ["query", "value"],
        "deberta": ["query_proj", "intermediate.dense"],
        "gpt2": ["c_attn", "mlp.c_proj"],
    }[family]
    theirs = get_peft_model(build(family), LoraConfig(r=1, target_modules=targets))
    adapted = [n.removeprefix("base_model.model.") for n, m in theirs.named_modules() if hasattr(m, "lora_A")]
    assert target_names(build(family), targets, heads[family]) == adapted


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["query"], ["layer.0.attention.self.query", "layer.1.attention.self.query"]),
        (("query",), ["layer.0.attention.self.query", "layer.1.attention.self.query"]),
        (["self.key", "self.query"], ["layer.0.attention.self.query", "layer.0.attention.self.key",
                                      "layer.1.attention.self.query", "layer.1.attention.self.key"]),
        (["bert.encoder.layer.1.output.dense"], ["layer.1.output.dense"]),
        (r".*layer\.1\..*(key|value)", ["layer.1.attention.self.key", "layer.1.attention.self.value"]),
        (r"bert\.encoder\.layer\.0\.output\.dense", ["layer.0.output.dense"]),
    ],
)  # fmt: skip
def test_targets(bert: Any, targets: Any, expected: list[str]) -> None:
    """Lists match endings and keep the model's order; a string is a regular expression over the whole name."""
    assert target_names(bert, targets, ["classifier"]) == [f"bert.encoder.{name}" for name in expected]


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["query", "valeu"], r"'valeu' matches no linear map; did you mean 'value'\?"),
        (["uery"], r"'uery' matches no linear map; did you mean 'query'\?"),
        (["zzz"], r"'zzz' matches no linear map; this model has dense, key, query, value"),
        (["classifier"], "'classifier' matches no linear map"),
        ("query", r"'query' matches no linear map; this model has dense, key"),
        (r".*\.(query", r"is not a regular expression: missing \)"),
        ([], "must not be an empty list"),
    ],
)
def test_a_wrong_target_suggests_the_nearest(bert: Any, targets: Any, words: str) -> None:
    with pytest.raises(ValueError, match=r"^model\.target_modules .*" + words) as caught:
        target_names(bert, targets, ["classifier"])
    assert "\n" not in str(caught.value)


def test_all_linear_on_a_model_without_linear_maps() -> None:
    with pytest.raises(ValueError, match="matches no linear map of this model"):
        target_names(nn.Sequential(nn.Linear(2, 2)), "all-linear", ["0"])


def test_the_head_is_excluded_as_a_whole_module() -> None:
    """Everything inside a head is skipped; a module whose name only starts the same is not."""
    model = nn.ModuleDict({"head": nn.Sequential(nn.Linear(2, 2)), "head2": nn.Linear(2, 2), "body": nn.Linear(2, 2)})
    assert linear_names(model, ["head"]) == ["head2", "body"]


def test_injection_changes_no_output(family: str, build: Any, heads: Any, answer: Any) -> None:
    """With all components masked, logits are bit-identical, and only factors are new parameters."""
    model = build(family)
    before, parameters = answer(model), {name for name, _ in model.named_parameters()}
    names = target_names(model, "all-linear", heads[family])
    layers = inject(model, names, 4, UNIT, dropout=0.5)
    assert torch.equal(answer(model), before)
    assert list(layers) == names
    assert all(model.get_submodule(name) is layer for name, layer in layers.items())
    new = {name.replace(".base.", ".") for name, _ in model.named_parameters()} - parameters
    assert new == {f"{name}.{factor}" for name in names for factor in ("A", "B", "g")}


def test_conv1d_shapes(build: Any) -> None:
    """GPT-2 stores (in, out): c_attn maps 16 to 48, c_fc 16 to 64, c_proj 64 to 16."""
    model = build("gpt2")
    layers = inject(model, target_names(model, ["c_attn", "c_fc", "mlp.c_proj"]), 2, UNIT)
    assert layers["transformer.h.0.attn.c_attn"].shape == (16, 48)
    assert layers["transformer.h.0.mlp.c_fc"].shape == (16, 64)
    assert layers["transformer.h.0.mlp.c_proj"].shape == (64, 16)
    assert all(layer.transposed for layer in layers.values())


def test_only_linear_maps_can_be_adapted(bert: Any) -> None:
    with pytest.raises(ValueError, match=r"only linear maps and convolutions can be .* 'bert.embeddings' is a BertEmb"):
        inject(bert, ["bert.embeddings"], 2, UNIT)
    inject(bert, ["bert.encoder.layer.0.output.dense"], 2, UNIT)
    with pytest.raises(ValueError, match=r"only linear maps and convolutions can be adapted, .* is a LowRankLinear"):
        inject(bert, ["bert.encoder.layer.0.output.dense"], 2, UNIT)


def test_a_top_level_module() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    inject(model, ["1"], 2, UNIT)
    assert isinstance(model[1], LowRankLinear)
    assert isinstance(model[0], nn.Linear)


@pytest.mark.parametrize(("family", "kind"), [("squeezebert", "Conv1d"), ("ibert", "QuantLinear")])
@pytest.mark.parametrize("targets", ["all-linear", ["query"]], ids=str)
def test_models_without_linear_maps(family: str, kind: str, targets: Any) -> None:
    """The message says what the model has instead, and that another model is needed."""
    fields = {"embedding_size": 16} if family == "squeezebert" else {}
    model = AutoModelForSequenceClassification.from_config(tiny_config(family, **fields))
    message = (
        rf"matches no linear map of this model; its weights are in .*\d+ {kind}.*; only nn\.Linear and GPT-2's Conv1D"
    )
    with pytest.raises(ValueError, match=r"^model\.target_modules .* " + message) as caught:
        target_names(model, targets, ["classifier"])
    assert "\n" not in str(caught.value)
