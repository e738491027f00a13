"""Trials trained together have the results that they have alone, to rounding."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from probing_allocators import PROBING
from trial_results import alone_and_jointly, assert_alike, with_lr

from rankopt.allocators import ALLOCATORS
from rankopt.core.progress import Control, Progress
from rankopt.core.spec import decode
from rankopt.core.trial_spec import ModelSpec, TrialSpec
from rankopt.training.joint.joint_training import run_trials
from rankopt.training.train import InterruptedTrialError
from rankopt.training.trial import run_trial

Spec = Callable[..., TrialSpec]

WATCHING = {"prilora", "increlora"}
"""Allocators that collect statistics of a layer's passes, so that their trials run their own."""


@pytest.mark.parametrize("name", ALLOCATORS)
def test_every_allocator(name: str, dropping_spec: Spec, tmp_path: Path, sizes: list[tuple[bool, int]]) -> None:
    """Three trials that differ in allocator, budget, learning rates, decay, schedule, clipping, data order and dropout
    have the same weights, masks, states, losses, ranks, points and predictions as alone."""
    other = "uniform" if name != "uniform" else "adalora"
    specs = [
        dropping_spec(allocator__name=name, training__clip=0.3),
        dropping_spec(allocator__name=other, seed=1, budget__mean_rank=1, model__max_rank=5,
            training__lr=1e-2, training__schedule="cosine", training__weight_decay=0.1,
        ),
        dropping_spec(allocator__name=name, seed=2, budget__mean_rank=3, training__head_lr=2e-2,
            training__clip=0.0, training__warmup=3,
        ),
    ]  # fmt: skip
    alone, _ = alone_and_jointly(specs, tmp_path)
    assert all(result.status == "complete" for result in alone)
    assert len({result.losses[-1].loss for result in alone}) == 3
    joined = 0 if name in WATCHING else 12
    assert sizes.count((True, 3)) == joined, "all three were in every training pass"
    assert (False, 3) in sizes, "and were scored together"


def test_trials_of_different_shapes(dropping_spec: Spec, tmp_path: Path) -> None:
    """Batch sizes, accumulation, lengths and numbers of steps may differ."""
    specs = [
        dropping_spec(training__steps=9, training__accumulation=2),
        dropping_spec(training__steps=5, training__batch_size=7, seed=1),
        dropping_spec(training__steps=7, training__batch_size=12, training__accumulation=3,
            allocator__name="adalora", seed=2, training__group_by_length=False, task__max_length=7,
        ),
    ]  # fmt: skip
    alone_and_jointly(specs, tmp_path)


def test_additional_passes_beside_another_trial(dropping_spec: Spec, tmp_path: Path) -> None:
    """Additional passes of a step are the trial's own and contribute to its gradient."""
    nested = {"name": "nested", "sandwich": 1, "distill": True, "recovery": 3}
    specs = [
        dropping_spec(allocator=nested, budget=None, training__steps=5),
        dropping_spec(training__steps=6, seed=1),
    ]
    alone, _ = alone_and_jointly(specs, tmp_path)
    assert all(result.status == "complete" for result in alone)


@pytest.mark.parametrize("name", PROBING)
def test_looking_at_data_before_training(
    name: str, dropping_spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Allocator.prepare` runs in each trial's own passes; trials still train together."""
    monkeypatch.setitem(ALLOCATORS, name, PROBING[name])
    specs = [dropping_spec(allocator__name=name, seed=seed, training__steps=5) for seed in range(2)]
    _, joint = alone_and_jointly([*specs, dropping_spec(training__steps=6)], tmp_path)
    assert joint[0].own.pattern != joint[1].own.pattern
    assert joint[0].cost is not None
    assert joint[0].cost.prepare_batches == 2


def test_regression_beside_classification(dropping_spec: Spec, tmp_path: Path) -> None:
    """Trials with different heads train together, each kind in passes of its own."""
    specs = [dropping_spec(task__name=task, seed=seed) for task, seed in (("stsb", 0), ("sst2", 0), ("stsb", 1))]
    alone_and_jointly(specs, tmp_path)


def test_bf16(dropping_spec: Spec, tmp_path: Path) -> None:
    """Under autocast a trial alone may round W + s B A, and a joint pass rounds W: equal to bfloat16's precision."""
    specs = [
        dropping_spec(training__precision=precision, seed=seed, training__lr=1e-3)
        for seed, precision in enumerate(("bf16", "bf16", "fp32"))
    ]
    folders = [[tmp_path / f"{kind}{index}" for index in range(3)] for kind in ("alone", "joint")]
    alone = [run_trial(spec, folder) for spec, folder in zip(specs, folders[0], strict=True)]
    together = run_trials(specs, folders[1])
    for a, b in zip(alone, together, strict=True):
        assert [e.loss for e in a.losses] == pytest.approx([e.loss for e in b.losses], abs=0.03)
    assert_alike(alone[2], together[2], (folders[0][2], folders[1][2]))


def test_a_diverging_trial(dropping_spec: Spec, tmp_path: Path) -> None:
    """A diverging trial fails as it fails alone, and does not change the others."""
    specs = [with_lr(dropping_spec(seed=seed), lr) for seed, lr in enumerate((5e-3, 1e30, 5e-3))]
    alone, together = alone_and_jointly(specs, tmp_path)
    assert [result.status for result in together] == ["complete", "failed", "complete"]
    assert together[1].reason == alone[1].reason != ""


def test_a_nan_in_the_middle(dropping_spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A NaN in one trial's factors reaches no other trial, whatever layer it is in."""
    specs = [dropping_spec(seed=seed) for seed in range(3)]
    folders = [tmp_path / f"alone{index}" for index in range(3)]
    alone = [run_trial(spec, folder) for spec, folder in zip(specs, folders, strict=True)]
    from rankopt.allocators.uniform import Uniform

    def before_step(self: Any, state: Any, layers: Any, step: int) -> None:
        if step == 5 and threading.current_thread().name.endswith("_1"):
            next(iter(layers.values())).A.data.fill_(math.nan)

    monkeypatch.setattr(Uniform, "before_step", before_step)
    places = [tmp_path / f"together{index}" for index in range(3)]
    together = run_trials(specs, places)
    assert [result.status for result in together] == ["complete", "failed", "complete"]
    assert "the loss became nan at step 5" in together[1].reason
    for index in (0, 2):
        assert_alike(alone[index], together[index], (folders[index], places[index]))


def test_the_order_of_trials_does_not_matter(dropping_spec: Spec, tmp_path: Path) -> None:
    """Any order gives the same results to rounding, and the same order the same bits."""
    specs = [
        dropping_spec(seed=seed, allocator__name=name) for seed, name in enumerate(("dylora", "adalora", "uniform"))
    ]
    places = [[tmp_path / f"{kind}{index}" for index in range(3)] for kind in "abc"]
    one = run_trials(specs, places[0])
    back = run_trials(specs[::-1], places[1])[::-1]
    again = run_trials(specs, places[2])
    for index in range(3):
        assert_alike(one[index], back[index], (places[0][index], places[1][2 - index]))
        assert_alike(one[index], again[index], (places[0][index], places[2][index]), atol=0, rtol=0)


@pytest.mark.parametrize("first", ["alone", "joint"])
def test_checkpoints_are_interchangeable(first: str, dropping_spec: Spec, tmp_path: Path) -> None:
    """Trials interrupted in joint training continue alone, and the other way round."""
    specs = [dropping_spec(seed=seed, allocator__name=name) for seed, name in enumerate(("adalora", "dylora"))]
    whole, cut = ([tmp_path / f"{kind}{index}" for index in range(2)] for kind in ("whole", "cut"))
    results = run_trials(specs, whole)
    steps: list[int] = []

    def observe(progress: Progress) -> None:
        steps.append(progress.step)

    if first == "joint":
        with pytest.raises(InterruptedTrialError):
            run_trials(specs, cut, observe=lambda index, progress: observe(progress), stop=lambda: max(steps) >= 5)
        again = [run_trial(spec, folder) for spec, folder in zip(specs, cut, strict=True)]
    else:
        for spec, folder in zip(specs, cut, strict=True):
            steps.clear()
            with pytest.raises(InterruptedTrialError):
                run_trial(spec, folder, Control(observe, stop=lambda: max(steps) >= 5))
        again = run_trials(specs, cut)
    for index in range(2):
        assert_alike(results[index], again[index], (whole[index], cut[index]))


def test_evaluations_during_training(dropping_spec: Spec, tmp_path: Path) -> None:
    """Evaluations during training report the same scores as alone, and change nothing."""
    specs = [dropping_spec(seed=seed, training__steps=6 + seed) for seed in range(2)]
    shown: dict[str, list[float]] = defaultdict(list)

    def observe(who: str, progress: Progress) -> None:
        if progress.stage == "score":
            shown[who].append(progress.values["score"])

    run_trials(
        specs, [tmp_path / "t0", tmp_path / "t1"], evaluations=2,
        observe=lambda index, progress: observe(f"together {index}", progress),
    )  # fmt: skip
    for index, spec in enumerate(specs):
        result = run_trial(spec, tmp_path / f"a{index}", Control(partial(observe, f"alone {index}"), evaluations=2))
        assert shown[f"alone {index}"] == pytest.approx(shown[f"together {index}"])
        assert len(shown[f"alone {index}"]) == 2
        assert result.status == "complete"


def test_a_wrong_spec(dropping_spec: Spec, tmp_path: Path) -> None:
    """The error is that of `run_trial`; the other trial finishes."""
    specs = [dropping_spec(), dropping_spec().model_copy(update={"model": ModelSpec(name=str(tmp_path / "nowhere"))})]
    seen: list[Progress] = []
    with pytest.raises(ValueError, match=r"model\.name must be a local folder"):
        run_trials(specs, [tmp_path / "0", tmp_path / "1"], observe=lambda index, progress: seen.append(progress))
    assert seen[-1].stage == "evaluate"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu(precision: str, dropping_spec: Spec, tmp_path: Path) -> None:
    """Equal on a GPU, up to the precision of kernels that sum in different orders."""
    specs = [
        dropping_spec(seed=seed, allocator__name=name, training__precision=precision)
        for seed, name in enumerate(("uniform", "adalora", "dylora"))
    ]
    alone = [run_trial(spec, tmp_path / f"a{seed}") for seed, spec in enumerate(specs)]
    together = run_trials(specs, [tmp_path / f"t{seed}" for seed in range(3)])
    for a, b in zip(alone, together, strict=True):
        tolerance = 1e-3 if precision == "fp32" else 0.05
        assert [e.loss for e in a.losses] == pytest.approx([e.loss for e in b.losses], abs=tolerance)


def test_decoders_share_passes(tmp_path: Path, sizes: list[tuple[bool, int]]) -> None:
    """Batches of different widths, with logits at different positions and dropout in attention, give the results of
    trials alone; an encoder-decoder's trials run one after another."""
    from tiny_models import tiny_language_model

    from rankopt.tasks.mini_decoder import build_tokenizer

    for family in ("gpt2", "t5"):
        tokenizer, folder = build_tokenizer(), tmp_path / family
        tiny_language_model(family, vocab_size=len(tokenizer)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        specs = [
            decode(
                TrialSpec,
                {
                    "task": {"name": "mini-text", "train_examples": 24, "search_examples": 6, "report_examples": 6},
                    "model": {"name": str(folder), "max_rank": 2, "alpha": 2.0},
                    "allocator": {"name": name},
                    "budget": {"mean_rank": 1},
                    "training": {"steps": 5, "batch_size": size, "lr": 0.01},
                    "seed": seed,
                },
            )
            for seed, (name, size) in enumerate((("uniform", 4), ("adalora", 4), ("dylora", 3)))
        ]
        sizes.clear()
        alone_and_jointly(specs, tmp_path / f"{family} trials")
        assert (max((size for _, size in sizes), default=0) == 3) == (family == "gpt2")
