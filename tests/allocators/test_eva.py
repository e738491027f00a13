"""EVA against PEFT's own, on the same batches of the same model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import EvaConfig, LoraConfig, get_eva_state_dict, get_peft_model

from rankopt.allocators.eva import EVA
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import pattern_of, shapes_of


def skew(model: Any) -> Any:
    """Let one hidden unit dominate what the first block reads, so that ranks differ."""
    with torch.no_grad():
        model.get_submodule("bert.embeddings.LayerNorm").weight[0] = 9.0
    return model


def training_of(lab: Any, allocator: EVA, budget: Budget, **options: Any) -> Any:
    training = lab.Training(allocator, budget, **options)
    skew(training.model)
    return training


def test_ranks_and_directions_are_pefts(lab: Any) -> None:
    """With tau = 0 it stops after two batches, as we do. Directions agree up to its random decompositions."""
    training = training_of(lab, EVA(batches=2), Budget(mean_rank=2)).prepare()
    model = skew(lab.base_model())
    config = LoraConfig(
        r=2,
        target_modules=list(training.layers),
        init_lora_weights="eva",
        eva_config=EvaConfig(rho=2.0, tau=0.0),
    )
    batches = [{"input_ids": batch["input_ids"]} for batch, _ in zip(lab.batches(), range(2), strict=False)]
    theirs = get_eva_state_dict(
        get_peft_model(model, config),
        batches,
        prepare_model_inputs_fn=None,
        prepare_layer_inputs_fn=None,
        show_progress_bar=False,
    )
    found = {name.removeprefix("base_model.model."): rows for name, rows in theirs.items()}
    ours = pattern_of(training.layers)
    assert {name: len(found.get(name, ())) for name in ours} == dict(ours)
    assert len(set(ours.values())) > 1, "ranks differ, or the test would show nothing"
    for name, rows in found.items():
        A = training.layers[name].active()[0]
        overlap = torch.nn.functional.cosine_similarity(A.detach(), rows).abs()
        assert float(overlap.min()) > 0.98, name


def test_ranks_are_a_plain_transcription(lab: Any) -> None:
    """The largest explained shares over all layers, from a whole decomposition of both batches' inputs."""
    training = training_of(lab, EVA(batches=2), Budget(mean_rank=2))
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in training.layers}
    for inputs in lab.probe(training).inputs(2):
        for name, X in inputs.items():
            rows[name].append(X)
    scores = []
    for name, parts in rows.items():
        X = torch.cat(parts)
        S = torch.linalg.svdvals(X - X.mean(0)) ** 2
        scores += [(float(share), name) for share in (S / S.sum())[:4]]
    best = sorted(scores, reverse=True)[:10]
    training.prepare()
    assert pattern_of(training.layers) == {name: sum(n == name for _, n in best) for name in rows}


@pytest.mark.parametrize(("policy", "scale"), [("init", 2.0), ("rs", 4.0 / 2**0.5), ("unit", 4.0)])
def test_the_scale_is_that_of_the_uniform_rank(policy: Any, scale: float, lab: Any) -> None:
    """alpha = 4 and mean rank 2, whatever a layer's own rank."""
    training = training_of(lab, EVA(batches=1), Budget(mean_rank=2), scale=policy).prepare()
    assert len({layer.rank for layer in training.layers.values()}) > 1
    assert {layer.s for layer in training.layers.values()} == {scale}


def test_a_parameter_budget_is_met(lab: Any) -> None:
    budget = Budget(mean_rank=2, unit="parameters")
    training = lab.Training(EVA(batches=1), budget).prepare()
    shapes = shapes_of(training.layers)
    assert budget.spent(pattern_of(training.layers), shapes) <= budget.amount(shapes)
