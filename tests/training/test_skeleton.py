"""Layers and coverage of a model, from its config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_config
from transformers import AutoModel

from rankopt.core.pattern import RankPattern
from rankopt.core.trial_spec import ModelSpec, TrialSpec
from rankopt.tasks.glue import GLUE
from rankopt.training.model import Adapted, load_adapted
from rankopt.training.skeleton import skeleton_of, tuned_parameters
from rankopt.tuners.build import build_tuners

FAMILIES = ["bert", "roberta", "deberta-v2", "distilbert", "gpt2"]


def family_config(family: str) -> Any:
    return tiny_config(family, pad_token_id=0) if family == "roberta" else tiny_config(family)


def load(folder: Path, **more: Any) -> Adapted:
    return load_adapted(ModelSpec(name=str(folder), max_rank=2, **more), "unit", GLUE["mnli"], 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers(family: str, checkpoint: Callable[..., Path]) -> None:
    """Layers without storage have the names and shapes of the real ones."""
    folder = checkpoint(family)
    skeleton = skeleton_of(ModelSpec(name=str(folder), max_rank=2), "unit", GLUE["sst2"].problem)
    dry, weights = skeleton.layers, skeleton.multiplied
    assert {n: layer.shape for n, layer in dry.items()} == {n: layer.shape for n, layer in load(folder).layers.items()}
    assert all(layer.A.is_meta for layer in dry.values())
    assert weights >= sum(layer.shape.fan_in * layer.shape.fan_out for layer in dry.values())


@pytest.mark.parametrize(
    ("family", "targets", "coverage"),
    [
        ("roberta", "all-linear", 1.0),
        ("roberta", ("query", "value"), 2 * 16 * 16 / (4 * 16 * 16 + 2 * 16 * 24)),
        # of each block: four 16 x 16 maps in attention; the router; three 16 x 24 maps in each of four experts
        ("mixtral", "all-linear", 1024 / (1024 + 64 + 4 * 3 * 16 * 24)),
    ],
)
def test_coverage(family: str, targets: Any, coverage: float, checkpoint: Callable[..., Path]) -> None:
    """The share of the block weights in adapted maps; fused experts are not linear maps."""
    folder = checkpoint(family, AutoModel.from_config(tiny_config(family)))
    found = skeleton_of(
        ModelSpec(name=str(folder), target_modules=targets, max_rank=2), "unit", GLUE["sst2"].problem
    ).coverage
    assert found == pytest.approx(coverage, abs=0.01)


def test_a_start_that_reads_data_needs_none_to_be_counted(tiny_spec: Callable[..., TrialSpec]) -> None:
    config = {"peft_type": "LORA", "r": 2}
    sizes = {
        tuned_parameters(tiny_spec(tuner={"name": "peft", "config": config | more}), 20)
        for more in ({}, {"init_lora_weights": "eva"}, {"init_lora_weights": "lora_ga"})
    }
    assert len(sizes) == 1


TUNERS = [
    {"name": "full"},
    {"name": "head"},
    {"name": "adapter", "width": 4},
    [{"name": "adapter", "width": 4}, {"name": "prefix", "tokens": 3}],
    {"name": "peft", "config": {"peft_type": "VERA", "r": 4}},
    {"name": "peft", "config": {"peft_type": "LORA", "r": 2, "init_lora_weights": "pissa"}},
]


@pytest.mark.parametrize("tuner", TUNERS, ids=str)
def test_what_tuners_store_is_known_without_weights(tuner: Any, tiny_spec: Callable[..., TrialSpec]) -> None:
    """Also where PEFT needs weights to start, which are then random ones."""
    spec = tiny_spec(tuner=tuner)
    adapted = load_adapted(spec.model, "unit", GLUE["sst2"], 0, "auto", build_tuners(spec), 20)
    assert tuned_parameters(spec, 20) == adapted.stored(RankPattern({}))
