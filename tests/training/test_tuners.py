"""Trials of every tuner, end to end: what they yield, that an interruption changes nothing, and a plain PEFT script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoConfig, AutoModelForSequenceClassification, get_linear_schedule_with_warmup
from trial_results import without_seconds

from rankopt.core.progress import Control
from rankopt.core.seeds import stream
from rankopt.core.trial_spec import TrialSpec
from rankopt.training.joint.joint_training import run_trials
from rankopt.training.prepare import prepare
from rankopt.training.probe import training_batches
from rankopt.training.train import InterruptedTrialError
from rankopt.training.trial import run_trial
from rankopt.tuners import TUNERS

Spec = Callable[..., TrialSpec]
LORA = {"name": "lora"}
ADALORA = {"peft_type": "ADALORA", "init_r": 4, "target_r": 2, "tinit": 2, "tfinal": 3, "deltaT": 1}
ARMS: dict[str, Any] = {
    "full": {"name": "full"},
    "bitfit": {"name": "bitfit"},
    "head": {"name": "head"},
    "adapter": {"name": "adapter", "kind": "parallel", "width": 4},
    "prompt": {"name": "prompt", "tokens": 3},
    "prefix": {"name": "prefix", "tokens": 3},
    "ia3": {"name": "peft", "config": {"peft_type": "IA3"}},
    "adalora": {"name": "peft", "config": ADALORA},
    "dora": {"name": "peft", "config": {"peft_type": "LORA", "r": 2, "use_dora": True, "target_modules": "all-linear"}},
    "eva": {"name": "peft", "config": {"peft_type": "LORA", "r": 2, "init_lora_weights": "eva"}},
    "lora + prefix": [LORA, {"name": "prefix", "tokens": 3}],
    "lora + adapter": [LORA, {"name": "adapter", "width": 4}],
}


SHORT: dict[str, Any] = {"training__lr": 0.02, "training__steps": 8}


def test_every_tuner_is_in_an_arm() -> None:
    assert {one["name"] for arm in ARMS.values() for one in (arm if isinstance(arm, list) else [arm])} == set(TUNERS)


@pytest.mark.parametrize("arm", ARMS)
def test_a_trial_of_every_tuner(arm: str, tiny_spec: Spec, tmp_path: Path) -> None:
    """One point, at what is stored, from finite losses."""
    result = run_trial(tiny_spec(tuner=ARMS[arm], **SHORT), tmp_path)
    assert result.status == "complete"
    assert len(result.points) == 1
    assert bool(result.own.pattern) == bool(result.layers) == arm.startswith("lora")
    assert result.parameters is not None
    assert (result.own.kept == 0) == (arm == "head")
    assert result.parameters.trained >= (0 if arm == "head" else 1)
    assert all(np.isfinite(event.loss) for event in result.losses)


@pytest.mark.parametrize("arm", ["full", "adalora", "eva", "lora + prefix"])
def test_an_interruption_changes_nothing(arm: str, tiny_spec: Spec, tmp_path: Path) -> None:
    """The same result and the same predictions, bit for bit."""
    spec = tiny_spec(tuner=ARMS[arm], **SHORT)
    asked: list[int] = []
    with pytest.raises(InterruptedTrialError):
        run_trial(spec, tmp_path / "cut", Control(stop=lambda: asked.append(0) or len(asked) == 5))  # type: ignore[func-returns-value]
    resumed, result = (run_trial(spec, tmp_path / name) for name in ("cut", "whole"))
    assert without_seconds(resumed) == without_seconds(result)
    whole, cut = (np.load(tmp_path / name / "predictions.npz") for name in ("whole", "cut"))
    assert all(np.array_equal(whole[key], cut[key]) for key in whole)


def test_trials_of_one_process_do_not_change_one_anothers_weights(tiny_spec: Spec, tmp_path: Path) -> None:
    first, *_, last = (
        run_trial(tiny_spec(tuner=tuner, training__steps=2), tmp_path / str(number))
        for number, tuner in enumerate((LORA, ARMS["full"], ARMS["eva"], LORA))
    )
    assert without_seconds(first) == without_seconds(last)


@pytest.mark.parametrize("arm", ["ia3", "prefix", "adalora", "dora"])
def test_logits_equal_those_of_a_plain_script_with_peft(arm: str, tiny_spec: Spec, tmp_path: Path) -> None:
    """Same start, batches, steps and schedule, with PEFT and torch alone; the saved adapter gives them too."""
    spec = tiny_spec(tuner=ARMS[arm], training__steps=8, training__clip=1.0)
    prepared = prepare(spec)
    batches = training_batches(prepared.adapted, prepared.task.problem, prepared.data.train, prepared.order)
    base: Any = AutoModelForSequenceClassification.from_pretrained(spec.model.name, num_labels=2)
    torch.manual_seed(stream(spec.seed, "head"))
    base._init_weights(base.classifier)
    options: dict[str, Any] = dict(ARMS[arm].get("config", {"num_virtual_tokens": 3}))
    kind = options.pop("peft_type", "PREFIX_TUNING")
    options |= {"total_step": 8} if kind == "ADALORA" else {}
    config = next(config for name, config in PEFT_TYPE_TO_CONFIG_MAPPING.items() if name == kind)
    torch.manual_seed(stream(spec.seed, "tuner"))
    net: Any = get_peft_model(base, config(task_type="SEQ_CLS", **options)).train()
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=spec.training.lr, weight_decay=0.0)
    schedule: LambdaLR = get_linear_schedule_with_warmup(optimizer, int(np.ceil(0.06 * 8)), 8)
    for step in range(1, 9):
        net(**next(batches)).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if kind == "ADALORA":
            net.base_model.update_and_allocate(step)
        schedule.step()
        optimizer.zero_grad()
    result = run_trial(spec, tmp_path)
    config_saved = AutoConfig.from_pretrained(tmp_path / "adapter")
    fresh = AutoModelForSequenceClassification.from_pretrained(spec.model.name, config=config_saved)
    saved = PeftModel.from_pretrained(fresh, str(tmp_path / "adapter")).eval()
    stored = np.load(tmp_path / "predictions.npz")["logits/budget/validation"]
    split = prepared.data.held_out["validation"]
    for index in range(4):
        item = {key: torch.as_tensor(value)[None] for key, value in split[index].items() if key != "labels"}
        with torch.no_grad():
            for model in (net.eval(), saved):
                logits = model(**item).logits[0].numpy()
                np.testing.assert_allclose(logits, stored[index], atol=2e-5, rtol=1e-3)
    assert result.own.kept > 0


def test_a_checkpoint_of_the_whole_model_needs_only_transformers(tiny_spec: Spec, tmp_path: Path) -> None:
    result = run_trial(tiny_spec(tuner=ARMS["full"], training__steps=2), tmp_path)
    net: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "adapter")
    assert sum(p.numel() for p in net.parameters()) == result.own.kept + result.parameters.head  # type: ignore[union-attr]


def test_other_tuners_run_beside_joined_trials(tiny_spec: Spec, tmp_path: Path) -> None:
    """Only gated layers are stacked; the others run alone, which one line per tuner says, with the same results."""
    tuners = (LORA, ARMS["prefix"], ARMS["full"], ARMS["lora + prefix"])
    specs = [tiny_spec(tuner=tuner, training__steps=3) for tuner in tuners]
    alone = [run_trial(spec, tmp_path / f"alone{number}") for number, spec in enumerate(specs)]
    lines: list[str] = []
    joint = run_trials(specs, [tmp_path / f"joint{number}" for number in range(4)], log=lines.append)
    for one, other in zip(alone, joint, strict=True):
        assert other.own.search == pytest.approx(one.own.search)
        assert other.own.kept == one.own.kept
    assert sorted(line for line in lines if "run one after another" in line) == [
        "trials with the tuner 'full' run one after another: only gated layers over plain weights can be stacked",
        "trials with the tuner 'prefix' run one after another: only gated layers over plain weights can be stacked",
    ]
