"""A trial's model: head, labels, and what trials share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_config
from transformers import AutoModel, AutoModelForSequenceClassification, BertForSequenceClassification

from rankopt.core.trial_spec import ModelSpec
from rankopt.tasks.glue import GLUE
from rankopt.training.model import Adapted, load_adapted
from rankopt.training.skeleton import skeleton_of

HEADS = {  # of a checkpoint of the bare encoder
    "bert": ("classifier",),
    "roberta": ("classifier",),
    "deberta-v2": ("pooler", "classifier"),
    "distilbert": ("pre_classifier", "classifier"),
    "gpt2": ("score",),
}


def family_config(family: str) -> Any:
    return tiny_config(family, pad_token_id=0) if family == "roberta" else tiny_config(family)


def load(folder: Path, **more: Any) -> Adapted:
    return load_adapted(ModelSpec(name=str(folder), max_rank=2, **more), "unit", GLUE["mnli"], 0)


@pytest.mark.parametrize("family", HEADS)
def test_the_head_of_every_family(family: str, checkpoint: Callable[..., Path], tiny_tokenizer: Any) -> None:
    """All modules behind the backbone are trained, the backbone is frozen, the counts add up, the head has no adapter,
    and the model answers a padded batch for three classes."""
    adapted = load(checkpoint(family))
    assert adapted.head == HEADS[family]
    trained = {name for name, p in adapted.net.named_parameters() if p.requires_grad}
    expected = {f"{name}.{factor}" for name in adapted.layers for factor in "AB"}
    for part in adapted.head:
        expected |= {f"{part}.{name}" for name, _ in adapted.net.get_submodule(part).named_parameters()}
    assert trained == expected
    assert not any(name.startswith(adapted.head) for name in adapted.layers)
    config = family_config(family)
    config.num_labels = 3
    plain = AutoModelForSequenceClassification.from_config(config)
    assert adapted.base_parameters + adapted.head_parameters == sum(p.numel() for p in plain.parameters())
    batch = tiny_tokenizer(["warm film", "dull cold road song"], padding=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    with torch.no_grad():
        logits = adapted.net.eval()(**batch).logits
    assert logits.shape == (2, 3)
    assert adapted.net.config.pad_token_id == tiny_tokenizer.pad_token_id


def test_a_fresh_head_depends_on_the_seed(checkpoint: Callable[..., Path]) -> None:
    """One seed gives one head, whatever the scale, the target modules or the global generator."""
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
    """A fine-tuned head is kept where it fits the task, and replaced where it does not."""
    model = BertForSequenceClassification(tiny_config("bert"))
    folder = checkpoint("bert", model)
    net: Any = load(folder).net
    assert net.classifier.weight.shape == (3, 16)
    net = load_adapted(ModelSpec(name=str(folder)), "unit", GLUE["sst2"], 0).net
    assert torch.equal(net.classifier.weight, model.classifier.weight)


def test_half_precision_checkpoints_become_float32(checkpoint: Callable[..., Path]) -> None:
    """A float16 file is computed in float32."""
    adapted = load(checkpoint("bert", AutoModel.from_config(tiny_config("bert")).half()))
    assert {p.dtype for p in adapted.net.parameters()} == {torch.float32}


def test_an_unknown_target_is_one_line(checkpoint: Callable[..., Path]) -> None:
    """In the trial and in the preflight, with the nearest name."""
    spec = ModelSpec(name=str(checkpoint("bert")), target_modules=("qery",))
    with pytest.raises(ValueError, match="'qery' matches no linear map; did you mean 'query'"):
        load_adapted(spec, "unit", GLUE["sst2"], 0)
    with pytest.raises(ValueError, match="'qery' matches no linear map; did you mean 'query'"):
        skeleton_of(spec, "unit", GLUE["sst2"].problem)


def test_trials_share_only_the_frozen_weights(checkpoint: Callable[..., Path]) -> None:
    """A second trial has the same frozen tensors, whatever its number of outputs, and its own factors and head.
    Training or merging in the first trial does not change it."""
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


def test_a_head_in_another_label_order(checkpoint: Callable[..., Path]) -> None:
    """The outputs of a checkpoint's head are matched with the task's labels by name, and keep their names."""
    order = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}
    model = BertForSequenceClassification(tiny_config("bert", num_labels=3, id2label=order))
    adapted = load(checkpoint("bert", model))
    net: Any = adapted.net
    assert torch.equal(net.classifier.weight, model.classifier.weight)
    assert adapted.columns == (2, 1, 0)
    logits = torch.tensor([[0.1, 0.2, 0.7]])
    assert adapted.in_task_order(logits).tolist() == [pytest.approx([0.7, 0.2, 0.1])]
    assert net.config.id2label == order
    assert not adapted.notes


def test_a_head_with_other_labels(checkpoint: Callable[..., Path]) -> None:
    """The weights are kept, the labels become the task's, and a note says so; a fresh head has the task's labels."""
    labels = {0: "joy", 1: "anger", 2: "fear"}
    model = BertForSequenceClassification(tiny_config("bert", num_labels=3, id2label=labels))
    folder = checkpoint("bert", model)
    adapted = load(folder)
    config: Any = adapted.net.config
    assert torch.equal(adapted.net.get_submodule("classifier").weight, model.classifier.weight)  # type: ignore[arg-type]
    assert adapted.columns is None
    assert config.id2label == dict(enumerate(GLUE["mnli"].labels))
    assert config.label2id == {label: index for index, label in enumerate(GLUE["mnli"].labels)}
    assert len(adapted.notes) == 1
    assert adapted.notes[0].startswith("the labels of the checkpoint's head (joy, anger, fear) are not the task's")
    fresh = load_adapted(ModelSpec(name=str(folder)), "unit", GLUE["sst2"], 0)
    config = fresh.net.config
    assert config.id2label == dict(enumerate(GLUE["sst2"].labels))
    assert not fresh.notes
