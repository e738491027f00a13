"""Which modules are the head, what a fingerprint covers, and one line for a model that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_config
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
)

from rankopt.core.trial_spec import ModelSpec
from rankopt.tasks.glue import GLUE
from rankopt.training.evaluate import predict
from rankopt.training.model import Adapted, load_adapted
from rankopt.training.pretrained import load_tokenizer
from rankopt.training.skeleton import skeleton_of

FAMILIES: dict[str, Callable[[], Any]] = {
    "bert": lambda: tiny_config("bert"),
    "roberta": lambda: tiny_config("roberta", pad_token_id=0),
    "deberta": lambda: tiny_config("deberta-v2"),
    "distilbert": lambda: tiny_config("distilbert"),
    "gpt2": lambda: tiny_config("gpt2"),
}
HEADS = {  # in full, for a checkpoint of the bare encoder as the hub has them
    "bert": ("classifier",),
    "roberta": ("classifier",),
    "deberta": ("pooler", "classifier"),
    "distilbert": ("pre_classifier", "classifier"),
    "gpt2": ("score",),
}


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_tokenizer: Any) -> Callable[..., Path]:
    """Saves a random encoder of a family, or a given model, with the tokenizer."""

    def save(family: str, model: Any = None, **saved: Any) -> Path:
        folder = tmp_path / family
        torch.manual_seed(1)
        (model or AutoModel.from_config(FAMILIES[family]())).save_pretrained(folder, **saved)
        tiny_tokenizer.save_pretrained(folder)
        return folder

    return save


def load(folder: Path, **more: Any) -> Adapted:
    return load_adapted(ModelSpec(name=str(folder), max_rank=2, **more), "unit", GLUE["mnli"], 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_of_every_family(family: str, checkpoint: Callable[..., Path], tiny_tokenizer: Any) -> None:
    """All modules behind the backbone are trained in full, the backbone's own weights are frozen, the counts add up to
    the whole model, no adapter sits in the head, and the model answers a padded batch for three classes."""
    adapted = load(checkpoint(family))
    assert adapted.head == HEADS[family]
    trained = {name for name, p in adapted.net.named_parameters() if p.requires_grad}
    expected = {f"{name}.{factor}" for name in adapted.layers for factor in "AB"}
    for part in adapted.head:
        expected |= {f"{part}.{name}" for name, _ in adapted.net.get_submodule(part).named_parameters()}
    assert trained == expected
    assert not any(name.startswith(adapted.head) for name in adapted.layers)
    config = FAMILIES[family]()
    config.num_labels = 3
    plain = AutoModelForSequenceClassification.from_config(config)
    assert adapted.base_parameters + adapted.head_parameters == sum(p.numel() for p in plain.parameters())
    batch = tiny_tokenizer(["warm film", "dull cold road song"], padding=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    with torch.no_grad():
        logits = adapted.net.eval()(**batch).logits
    assert logits.shape == (2, 3)
    assert adapted.net.config.pad_token_id == tiny_tokenizer.pad_token_id


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_can_be_named_from_the_config_alone(family: str, checkpoint: Callable[..., Path]) -> None:
    """The dry layers of a preflight have the names and shapes of the real ones, and hold no storage."""
    folder = checkpoint(family)
    skeleton = skeleton_of(ModelSpec(name=str(folder), max_rank=2), "unit")
    dry, weights = skeleton.layers, skeleton.multiplied
    assert {n: layer.shape for n, layer in dry.items()} == {n: layer.shape for n, layer in load(folder).layers.items()}
    assert all(layer.A.is_meta for layer in dry.values())
    assert weights >= sum(layer.shape.fan_in * layer.shape.fan_out for layer in dry.values())


def test_a_pooler_that_the_checkpoint_lacks_is_head(checkpoint: Callable[..., Path]) -> None:
    """A randomly drawn pooler must be trained; one that was loaded stays frozen."""
    bare = AutoModel.from_config(FAMILIES["bert"](), add_pooling_layer=False)
    assert load(checkpoint("bert", bare)).head == ("classifier", "bert.pooler.dense")


def test_the_head_is_fresh_and_the_seeds_own(checkpoint: Callable[..., Path]) -> None:
    """One seed gives one head whatever the scale, the target modules or the global generator; another seed, another."""
    folder = checkpoint("bert")
    weights = []
    for seed, policy, targets in ((0, "unit", "all-linear"), (0, "active", ("query",)), (1, "unit", "all-linear")):
        torch.rand(7)
        spec = ModelSpec(name=str(folder), max_rank=2, target_modules=targets)
        net: Any = load_adapted(spec, policy, GLUE["sst2"], seed).net  # type: ignore[arg-type]
        weights.append(net.classifier.weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert weights[0].std() > 0


def test_a_saved_head(checkpoint: Callable[..., Path]) -> None:
    """A fine-tuned head is taken up where it fits the task, and replaced by a fresh one where it does not."""
    model = BertForSequenceClassification(FAMILIES["bert"]())
    folder = checkpoint("bert", model)
    net: Any = load(folder).net
    assert net.classifier.weight.shape == (3, 16)
    net = load_adapted(ModelSpec(name=str(folder)), "unit", GLUE["sst2"], 0).net
    assert torch.equal(net.classifier.weight, model.classifier.weight)


def test_weights_that_belie_their_config_are_refused(checkpoint: Callable[..., Path]) -> None:
    """A backbone of another size than the config says is not quietly replaced by random weights."""
    folder = checkpoint("bert")
    config = FAMILIES["bert"]()
    config.intermediate_size = 20
    config.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"model\.name must be .*has shape \(24,\), its config says \(20,\)"):
        load(folder)


def test_the_fingerprint_is_of_the_frozen_weights(checkpoint: Callable[..., Path], tiny_model: Path) -> None:
    """It is stable, ignores seed, head and adapters, and changes with a single weight by one bit's worth."""
    model = AutoModel.from_config(FAMILIES["bert"]())
    folder = checkpoint("bert", model)
    prints = {load(folder).fingerprint, load(folder, target_modules=("query",)).fingerprint}
    prints.add(load_adapted(ModelSpec(name=str(folder)), "init", GLUE["sst2"], 5).fingerprint)
    assert len(prints) == 1
    with torch.no_grad():
        weight = model.encoder.layer[1].output.dense.bias
        weight[3] = torch.nextafter(weight[3], torch.tensor(1.0))
    elsewhere = folder.rename(folder.with_name("changed"))  # a process reads a checkpoint once
    model.save_pretrained(elsewhere)
    assert load(elsewhere).fingerprint not in prints


def test_half_precision_checkpoints_become_float32(checkpoint: Callable[..., Path]) -> None:
    """A float16 file is computed in float32."""
    adapted = load(checkpoint("bert", AutoModel.from_config(FAMILIES["bert"]()).half()))
    assert {p.dtype for p in adapted.net.parameters()} == {torch.float32}


def test_gpt2_pads_with_its_end_of_text(tmp_path: Path, tiny_tokenizer: Any, tiny_spec: Any) -> None:
    """A tokenizer without a pad token gets one, and the logit is read at the last real token: an example's answer does
    not depend on its neighbours' lengths."""
    from copy import deepcopy

    tokenizer = deepcopy(tiny_tokenizer)
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    torch.manual_seed(0)
    AutoModel.from_config(FAMILIES["gpt2"]()).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    spec = ModelSpec(name=str(tmp_path), max_rank=2)
    assert load_tokenizer(spec.name).pad_token == "[SEP]"
    adapted = load_adapted(spec, "unit", GLUE["sst2"], 0)
    assert adapted.net.config.pad_token_id == 3  # type: ignore[union-attr]
    from datasets import Dataset

    from rankopt.tasks.encode import encode

    rows = Dataset.from_dict({"sentence": ["warm", "dull cold road song film", "flat coat"], "label": [1, 0, 0]})
    data = encode(GLUE["sst2"], rows, adapted.tokenizer, 16)
    together, alone = (predict(adapted, GLUE["sst2"].problem, data, size, "fp32")["logits"] for size in (8, 1))
    assert abs(together - alone).max() < 1e-5


UNREADABLE = ["missing", "empty", "garbled config", "wrong config", "no weights", "cut weights", "no tokenizer"]


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_model_that_cannot_be_read_is_one_line(case: str, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Whatever is wrong with the folder, the answer is one line with the field, the value and what it must be."""
    folder = tmp_path / "absent" if case == "missing" else checkpoint("bert")
    match case:
        case "empty":
            for file in folder.iterdir():
                file.unlink()
        case "garbled config":
            (folder / "config.json").write_text("{")
        case "wrong config":
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | {"hidden_size": "big"}))
        case "no weights":
            (folder / "model.safetensors").unlink()
        case "cut weights":
            weights = folder / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:1000])
        case "no tokenizer":
            for file in folder.glob("tokenizer*"):
                file.unlink()
    with pytest.raises(ValueError, match=r"model\.name must be a local folder") as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert repr(str(folder)) in str(caught.value)
    if case not in ("no weights", "cut weights"):
        spec = ModelSpec(name=str(folder), max_rank=2)
        with pytest.raises(ValueError, match=r"model\.name must be a local folder"):
            load_tokenizer(spec.name) if case == "no tokenizer" else skeleton_of(spec, "unit")


def test_an_unknown_target_is_one_line(checkpoint: Callable[..., Path]) -> None:
    """Both in the trial and in the preflight, with the nearest name."""
    spec = ModelSpec(name=str(checkpoint("bert")), target_modules=("qery",))
    with pytest.raises(ValueError, match="'qery' matches no linear map; did you mean 'query'"):
        load_adapted(spec, "unit", GLUE["sst2"], 0)
    with pytest.raises(ValueError, match="'qery' matches no linear map; did you mean 'query'"):
        skeleton_of(spec, "unit")


def test_trials_share_the_frozen_weights_and_nothing_else(checkpoint: Callable[..., Path]) -> None:
    """The checkpoint is held once per process: a second trial has the very same frozen tensors, whatever its number of
    outputs, its own factors and head, and what the first one trained or merged does not reach it."""
    spec = ModelSpec(name=str(checkpoint("bert")), max_rank=2)
    first, second = (load_adapted(spec, "unit", GLUE["sst2"], seed) for seed in (0, 0))
    fresh = {name: value.clone() for name, value in second.net.state_dict().items()}
    frozen = {name: p for name, p in first.net.named_parameters() if not p.requires_grad and ".g" not in name}
    shared = {name: p.data_ptr() for name, p in frozen.items()}
    mine = dict(second.net.named_parameters())
    assert shared
    assert all(mine[name].data_ptr() == pointer for name, pointer in shared.items())
    with torch.no_grad():
        for parameter in first.net.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
        for layer in first.layers.values():
            layer.open(2)
            layer.merge()
    third = load_adapted(spec, "unit", GLUE["sst2"], 0)
    for name, value in third.net.state_dict().items():
        assert torch.equal(value, fresh[name]), name
    assert first.fingerprint == third.fingerprint
    other = load_adapted(spec, "unit", GLUE["mnli"], 0)  # three outputs, not two
    mine = dict(other.net.named_parameters())
    assert all(mine[name].data_ptr() == pointer for name, pointer in shared.items())
    assert other.tokenizer is first.tokenizer
    for name, value in load_adapted(spec, "unit", GLUE["sst2"], 0).net.state_dict().items():
        assert torch.equal(value, fresh[name]), name
