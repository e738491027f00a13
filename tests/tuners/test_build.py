"""The rules for tuners, and the protocol that every one of them keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rankopt.core.spec import decode
from rankopt.core.trial_spec import TrialSpec
from rankopt.lowrank.layers import pattern_of
from rankopt.tuners import TUNERS
from rankopt.tuners.base import head_modules
from rankopt.tuners.build import attach_all, build_tuners
from rankopt.tuners.saved import load, save_all

LORA = {"name": "lora"}
ARMS: dict[str, Any] = {
    "full": {"name": "full"},
    "bitfit": {"name": "bitfit"},
    "head": {"name": "head"},
    "houlsby": {"name": "adapter", "kind": "houlsby", "width": 4},
    "pfeiffer": {"name": "adapter", "width": 4},
    "parallel": {"name": "adapter", "kind": "parallel", "width": 4},
    "prompt": {"name": "prompt", "tokens": 3},
    "prefix": {"name": "prefix", "tokens": 3},
    "peft": {"name": "peft", "config": {"peft_type": "IA3"}},
    "lora + prefix": [{"name": "prefix", "tokens": 3}, LORA],
    "lora + prompt": [LORA, {"name": "prompt", "tokens": 3}],
    "lora + adapter": [LORA, {"name": "adapter", "width": 4}],
    "lora + adapter + prefix": [LORA, {"name": "adapter", "width": 4}, {"name": "prefix", "tokens": 3}],
}


def trial(tuner: Any) -> TrialSpec:
    data = {"task": {"name": "mini-cola"}, "allocator": {"name": "uniform"}, "budget": {"mean_rank": 1}}
    return decode(TrialSpec, {**data, "tuner": tuner})


@pytest.mark.parametrize(
    ("tuner", "message"),
    [
        ({"name": "fulll"}, "tuner.name must be a known tuner, got 'fulll'; did you mean 'full'"),
        ([LORA, {"name": "full"}], "tuner must list only lora, adapter, prompt, prefix beside one another, got 'full'"),
        ([LORA, LORA], "tuner must list at least one tuner and none twice"),
        ([{"name": "prompt"}, {"name": "prefix"}], "tuner must list at most one of prompt and prefix"),
    ],
)
def test_tuners_that_do_not_go_together_are_refused(tuner: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_tuners(trial(tuner))


def test_the_order_of_a_list_does_not_matter() -> None:
    one, other = (list(build_tuners(trial(tuners))) for tuners in (ARMS["lora + prefix"], ARMS["lora + prefix"][::-1]))
    assert one == other == ["lora", "prefix"]


def test_every_tuner_is_in_an_arm() -> None:
    assert {name for arm in ARMS.values() for name in build_tuners(trial(arm))} == set(TUNERS)


@pytest.mark.parametrize("arm", ARMS)
def test_a_tuner_counts_trains_and_saves_what_it_says(
    arm: str, host: Callable[..., Any], classifier: Callable[..., Any], logits: Callable[[Any], Any],
    disturb: Callable[[Any], None], tmp_path: Path,
) -> None:  # fmt: skip
    """Base weights stay as they are; a new model with what was saved computes the same; so does the merged one."""
    where, base = host(), classifier()
    shared = [p for name, p in where.net.named_parameters() if not name.startswith("classifier")]
    before = [p.detach().clone() for p in shared]
    torch.manual_seed(3)
    attached = attach_all(build_tuners(trial(ARMS[arm])), where)
    net = list(attached.values())[-1].net
    names = set(attached)
    if not names & {"prompt", "prefix"}:
        torch.testing.assert_close(logits(net), logits(base))
    layers = next((one.layers for one in attached.values() if one.layers), {})
    for layer in layers.values():
        layer.A.data.normal_(), layer.B.data.normal_(), layer.open(1)
    for one in attached.values():
        disturb(one)
    for module in head_modules(net, where.head).values():
        for parameter in module.parameters():
            parameter.data.add_(0.1)
    assert all(map(torch.equal, before, shared))
    head = sum(p.numel() for p in base.classifier.parameters())
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    held = sum(2 * layer.A.numel() // 2 + layer.B.numel() for layer in layers.values())
    assert trained - head - held == sum(p.numel() for one in attached.values() for p in one.parameters.values())
    assert sum(one.stored() for one in attached.values() if not one.layers) == trained - head - held
    assert set(pattern_of(layers).values()) <= {1}
    own = logits(net)
    save_all(attached, tmp_path)
    if names & {"full", "bitfit", "head"}:
        again: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    else:
        again = load(classifier(), tmp_path)
    torch.testing.assert_close(logits(again), own, atol=1e-5, rtol=1e-4)
    if len(names) == 1 and not names & {"adapter", "prompt", "prefix"}:
        torch.testing.assert_close(logits(attached[names.pop()].merge()), own, atol=1e-5, rtol=1e-4)
    elif "lora" not in names:
        with pytest.raises(ValueError, match="cannot be merged"):
            attached[names.pop()].merge()
