"""Trials trained at once give what they give one by one, to rounding, and leave no trace on each other."""

from __future__ import annotations

import itertools
import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rankopt.allocators import ALLOCATORS
from rankopt.core.result import Progress, TrialResult
from rankopt.core.spec import TrialSpec
from rankopt.training.checkpoint import ADAPTER, latest
from rankopt.training.data import load_data
from rankopt.training.joint.stacked_model import Stack
from rankopt.training.joint.together import run_trials
from rankopt.training.model import load_tokenizer
from rankopt.training.order import Order
from rankopt.training.trial import InterruptedTrialError, run_trial

Spec = Callable[..., TrialSpec]


@pytest.fixture(scope="module")
def dropping_model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """The tiny BERT with dropout everywhere."""
    return save(tmp_path_factory.mktemp("models"), tiny_tokenizer, attention_probs_dropout_prob=0.2)


def save(folder: Path, tokenizer: Any, **changes: Any) -> Path:
    from tiny_models import tiny_config
    from transformers import BertModel

    how = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "initializer_range": 0.2}
    torch.manual_seed(0)
    BertModel(tiny_config(**(how | changes))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """Of every joint pass: whether it trained, and how many trials were in it."""
    seen: list[tuple[bool, int]] = []

    class Watched(Stack):
        def forward(self, parts: Any, training: bool) -> list[Tensor]:
            logits = super().forward(parts, training)
            seen.append((training, len(parts)))
            return logits

    monkeypatch.setattr("rankopt.training.joint.together.Stack", Watched)
    return seen


def content(folder: Path) -> dict[str, Any]:
    """Factors, gates, masks, head, state and record of the last checkpoint, flat."""
    checkpoint = latest(folder / "checkpoints")
    assert checkpoint is not None
    saved = torch.load(checkpoint / ADAPTER, weights_only=True)
    saved["records"].pop("seconds")
    return dict(flat(saved)) | dict(np.load(folder / "predictions.npz"))


def flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in flat(item, f"{name}/{key}")]
    if isinstance(value, list | tuple):
        return [pair for index, item in enumerate(value) for pair in flat(item, f"{name}/{index}")]
    return [(name, value)]


def assert_alike(
    alone: TrialResult, together: TrialResult, folders: tuple[Path, Path], atol: float = 2e-5, rtol: float = 1e-4
) -> None:
    """Equal results but for seconds and rounding; equal to rounding in every number of the last checkpoint."""
    first, second = (result.model_dump(mode="json", exclude={"cost", "environment"}) for result in (alone, together))
    for (name, a), (other, b) in zip(flat(first), flat(second), strict=True):
        assert name == other
        assert a == (pytest.approx(b, abs=atol, rel=rtol) if isinstance(b, float) else b), name
    if alone.status == "failed":
        return
    assert alone.cost is not None
    assert together.cost is not None
    assert (alone.cost.steps, alone.cost.tokens) == (together.cost.steps, together.cost.tokens)
    ours, theirs = map(content, folders)
    assert ours.keys() == theirs.keys()
    for name, a in ours.items():
        b = theirs[name]
        if isinstance(a, Tensor | np.ndarray):
            torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), atol=atol, rtol=rtol, msg=name)
        else:
            assert a == (pytest.approx(b, abs=atol, rel=rtol) if isinstance(b, float) else b), name


def both(specs: list[TrialSpec], folder: Path, **how: float) -> tuple[list[TrialResult], list[TrialResult]]:
    """Train them one by one and at once, and compare."""
    ours, theirs = ([folder / f"{kind}{index}" for index in range(len(specs))] for kind in ("alone", "together"))
    alone = [run_trial(spec, place) for spec, place in zip(specs, ours, strict=True)]
    together = run_trials(specs, theirs)
    for a, b, places in zip(alone, together, zip(ours, theirs, strict=True), strict=True):
        assert_alike(a, b, places, **how)
    return alone, together


@pytest.mark.parametrize("name", ALLOCATORS)
def test_every_allocator(
    name: str, tiny_spec: Spec, dropping_model: Path, tmp_path: Path, sizes: list[tuple[bool, int]]
) -> None:
    """Three trials that differ in allocator, budget, learning rates, decay, schedule, clipping and data order, with
    dropout: weights, masks, states, losses, ranks, points and predictions are those of each alone."""
    other = "uniform" if name != "uniform" else "adalora"
    specs = [
        tiny_spec(model__name=str(dropping_model), allocator__name=name, training__clip=0.3),
        tiny_spec(
            model__name=str(dropping_model), allocator__name=other, seed=1, budget__mean_rank=1, model__max_rank=5,
            training__lr=1e-2, training__schedule="cosine", training__weight_decay=0.1,
        ),
        tiny_spec(
            model__name=str(dropping_model), allocator__name=name, seed=2, budget__mean_rank=3, training__head_lr=2e-2,
            training__clip=0.0, training__warmup=3,
        ),
    ]  # fmt: skip
    alone, _ = both(specs, tmp_path)
    assert all(result.status == "complete" for result in alone)
    assert len({result.losses[-1].loss for result in alone}) == 3
    assert sizes.count((True, 3)) == 12, "all three were in every training pass"
    assert (False, 3) in sizes, "and were scored together"


def test_trials_of_other_shapes(tiny_spec: Spec, dropping_model: Path, tmp_path: Path) -> None:
    """Other batch sizes, accumulation (not in step with each other), lengths, tasks' ends and numbers of steps."""
    specs = [
        tiny_spec(model__name=str(dropping_model), training__steps=9, training__accumulation=2),
        tiny_spec(model__name=str(dropping_model), training__steps=5, training__batch_size=7, seed=1),
        tiny_spec(
            model__name=str(dropping_model), training__steps=7, training__batch_size=12, training__accumulation=3,
            allocator__name="adalora", seed=2, training__group_by_length=False, task__max_length=7,
        ),
    ]  # fmt: skip
    both(specs, tmp_path)


def test_a_sandwich_beside_another_trial(tiny_spec: Spec, dropping_model: Path, tmp_path: Path) -> None:
    """A step's further passes are the trial's own, and take part in its gradient."""
    nested = {"name": "nested", "sandwich": 1, "distill": True, "recovery": 3}
    specs = [
        tiny_spec(model__name=str(dropping_model), allocator=nested, budget=None, training__steps=5),
        tiny_spec(model__name=str(dropping_model), training__steps=6, seed=1),
    ]
    alone, _ = both(specs, tmp_path)
    assert all(result.status == "complete" for result in alone)


def test_dropout_of_the_adapters(tiny_spec: Spec, dropping_model: Path, tmp_path: Path) -> None:
    """The adapters' own dropout draws from each trial's own stream too."""
    both(
        [tiny_spec(model__name=str(dropping_model), model__dropout=p, seed=s) for s, p in ((0, 0.3), (1, 0.0))],
        tmp_path,
    )


def test_a_regression_beside_another(tiny_spec: Spec, dropping_model: Path, tmp_path: Path) -> None:
    """Tasks with other heads train at once too, each in passes of its own."""
    specs = [
        tiny_spec(model__name=str(dropping_model), task__name=task, seed=seed)
        for task, seed in (("stsb", 0), ("sst2", 0), ("stsb", 1))
    ]
    both(specs, tmp_path)


def test_bf16(tiny_spec: Spec, dropping_model: Path, tmp_path: Path) -> None:
    """Under autocast a trial alone may round W + s B A, and the joint pass rounds W: close, as bfloat16 is."""
    specs = [
        tiny_spec(model__name=str(dropping_model), training__precision=precision, seed=seed, training__lr=1e-3)
        for seed, precision in enumerate(("bf16", "bf16", "fp32"))
    ]
    folders = [[tmp_path / f"{kind}{index}" for index in range(3)] for kind in ("alone", "together")]
    alone = [run_trial(spec, folder) for spec, folder in zip(specs, folders[0], strict=True)]
    together = run_trials(specs, folders[1])
    for a, b in zip(alone, together, strict=True):
        assert [e.loss for e in a.losses] == pytest.approx([e.loss for e in b.losses], abs=0.03)
    assert_alike(alone[2], together[2], (folders[0][2], folders[1][2]))


def test_one_that_diverges_fails_alone(tiny_spec: Spec, dropping_model: Path, tmp_path: Path) -> None:
    """It ends as it ends alone, and the others' numbers are those without it."""
    specs = [
        tiny_spec(model__name=str(dropping_model), seed=seed, training__lr=lr)
        for seed, lr in enumerate((5e-3, 1e30, 5e-3))
    ]
    alone, together = both(specs, tmp_path)
    assert [result.status for result in together] == ["complete", "failed", "complete"]
    assert together[1].reason == alone[1].reason != ""


def test_one_that_becomes_nan_in_the_middle(
    tiny_spec: Spec, tmp_path: Path, dropping_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Factors that are NaN in the joint pass reach no other trial, whatever layer they are in."""
    specs = [tiny_spec(model__name=str(dropping_model), seed=seed) for seed in range(3)]
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


def test_the_order_of_trials_does_not_matter(tiny_spec: Spec, dropping_model: Path, tmp_path: Path) -> None:
    """Any order gives the same to rounding, and the same order the same bits."""
    specs = [
        tiny_spec(model__name=str(dropping_model), seed=seed, allocator__name=name)
        for seed, name in enumerate(("dylora", "adalora", "uniform"))
    ]
    places = [[tmp_path / f"{kind}{index}" for index in range(3)] for kind in "abc"]
    one = run_trials(specs, places[0])
    back = run_trials(specs[::-1], places[1])[::-1]
    again = run_trials(specs, places[2])
    for index in range(3):
        assert_alike(one[index], back[index], (places[0][index], places[1][2 - index]))
        assert_alike(one[index], again[index], (places[0][index], places[2][index]), atol=0, rtol=0)


@pytest.mark.parametrize("first", ["alone", "together"])
def test_a_checkpoint_of_one_serves_the_other(
    first: str, tiny_spec: Spec, dropping_model: Path, tmp_path: Path
) -> None:
    """Trials interrupted at once continue one by one, and the other way round, as if nothing had happened."""
    specs = [
        tiny_spec(model__name=str(dropping_model), seed=seed, allocator__name=name)
        for seed, name in enumerate(("adalora", "dylora"))
    ]
    whole, cut = ([tmp_path / f"{kind}{index}" for index in range(2)] for kind in ("whole", "cut"))
    results = run_trials(specs, whole)
    steps: list[int] = []

    def observe(progress: Progress) -> None:
        steps.append(progress.step)

    if first == "together":
        with pytest.raises(InterruptedTrialError):
            run_trials(specs, cut, observe=lambda index, progress: observe(progress), stop=lambda: max(steps) >= 5)
        again = [run_trial(spec, folder) for spec, folder in zip(specs, cut, strict=True)]
    else:
        for spec, folder in zip(specs, cut, strict=True):
            steps.clear()
            with pytest.raises(InterruptedTrialError):
                run_trial(spec, folder, observe=observe, stop=lambda: max(steps) >= 5)
        again = run_trials(specs, cut)
    for index in range(2):
        assert_alike(results[index], again[index], (whole[index], cut[index]))


def test_evaluations_while_they_train(tiny_spec: Spec, dropping_model: Path, tmp_path: Path) -> None:
    """What is shown to a pruner is what is shown alone, and changes nothing."""
    specs = [tiny_spec(model__name=str(dropping_model), seed=seed, training__steps=6 + seed) for seed in range(2)]
    shown: dict[int, list[float]] = {0: [], 1: []}
    run_trials(
        specs, [tmp_path / "t0", tmp_path / "t1"], evaluations=2,
        observe=lambda index, p: shown[index].append(p.values["score"]) if p.stage == "score" else None,
    )  # fmt: skip
    for index, spec in enumerate(specs):
        alone: list[float] = []
        result = run_trial(
            spec, tmp_path / f"a{index}", evaluations=2,
            observe=lambda p, alone=alone: alone.append(p.values["score"]) if p.stage == "score" else None,
        )  # fmt: skip
        assert alone == pytest.approx(shown[index])
        assert len(alone) == 2
        assert result.status == "complete"


def test_a_wrong_spec_is_raised_and_the_others_end(tiny_spec: Spec, dropping_model: Path, tmp_path: Path) -> None:
    """The error is the one that `run_trial` raises; the other trial is not cut off."""
    specs = [tiny_spec(model__name=str(dropping_model)), tiny_spec(model__name=str(tmp_path / "nowhere"))]
    seen: list[Progress] = []
    with pytest.raises(ValueError, match=r"model\.name must be a local folder"):
        run_trials(specs, [tmp_path / "0", tmp_path / "1"], observe=lambda index, progress: seen.append(progress))
    assert seen[-1].stage == "evaluate"


class Noisy(nn.Module):
    """Draws a random number that no dropout module knows of."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.2, self.training)


class Mixing(nn.Module):
    """Every example sees the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean(0, keepdim=True)


class Padded(nn.Module):
    """Every token sees all others, padding too."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean(1, keepdim=True)


@pytest.mark.parametrize("strange", [Noisy, Mixing, Padded])
def test_a_model_that_cannot_be_stacked_is_not(
    strange: type[nn.Module], tiny_spec: Spec, dropping_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found out at its first joint pass, and its trials take turns instead: the very numbers of each alone."""
    from rankopt.training import trial as trial_module

    load = trial_module.load_adapted

    def loaded(*args: Any) -> Any:
        adapted = load(*args)
        adapted.net.bert.embeddings.LayerNorm = nn.Sequential(adapted.net.bert.embeddings.LayerNorm, strange())
        return adapted

    monkeypatch.setattr(trial_module, "load_adapted", loaded)
    if strange is Padded:  # their first batches are as long as each other and tell nothing; the second ones do
        spec = tiny_spec(model__name=str(dropping_model))
        lengths, size = (
            load_data(spec.task, load_tokenizer(str(dropping_model))).train.lengths,
            spec.training.batch_size,
        )
        orders = [Order(lengths, size, seed, spec.training.group_by_length).indices(0) for seed in range(100)]
        widths = [tuple(int(lengths[order[n * size :][:size]].max()) for n in range(2)) for order in orders]
        pairs = itertools.combinations(range(100), 2)
        seeds = next((a, b) for a, b in pairs if widths[a][0] == widths[b][0] and widths[a][1] != widths[b][1])
    else:
        seeds = (0, 1)
    specs = [tiny_spec(model__name=str(dropping_model), seed=seed, training__steps=4) for seed in seeds]
    exact = 0 if strange is not Padded else 1e-6  # the first pass was a joint one
    both(specs, tmp_path, atol=exact, rtol=exact)
    said: list[str] = []
    run_trials(specs, [tmp_path / "x", tmp_path / "y"], say=said.append)
    assert len(said) == 1
    assert said[0].startswith("trials of BertForSequenceClassification take turns")


def test_memory_for_two_of_four(
    tiny_spec: Spec, dropping_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a joint pass does not fit, the next ones are of half as many trials, whose graphs are gone before the
    others' turn comes; every trial's numbers are its own."""
    sizes, forward, lanes = list[int](), Stack.forward, list[int]()

    def tight(stack: Stack, parts: Any, training: bool) -> list[Tensor]:
        sizes.append(len(parts))
        if len(parts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if training:
            lanes.extend(id(part.adapted) for part in parts)
        return forward(stack, parts, training)

    monkeypatch.setattr(Stack, "forward", tight)
    specs = [tiny_spec(model__name=str(dropping_model), seed=seed, training__steps=4) for seed in range(4)]
    both(specs, tmp_path)
    assert sizes[0] == 4
    assert set(sizes[1:]) <= {1, 2}
    assert all(len(set(lanes[n : n + 4])) == 4 for n in range(0, 16, 4)), "in turns"
    said: list[str] = []
    run_trials(specs, [tmp_path / f"again{seed}" for seed in range(4)], say=said.append)
    assert said == ["passes of 4 trials of BertForSequenceClassification do not fit into memory; of 2 from now on"]


@pytest.mark.parametrize(
    ("error", "word"), [(torch.OutOfMemoryError("CUDA out of memory."), "memory"), (RuntimeError("odd"), "odd")]
)
@pytest.mark.parametrize("allocator", ["uniform", "adalora"])
def test_a_joint_backward_that_fails(
    error: Exception, word: str, allocator: str, tiny_spec: Spec, dropping_model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Every trial's passes are made once more, its own, with the same random numbers, and nothing is added twice."""
    grad, calls = torch.autograd.grad, list[int]()

    def tight(outputs: Any, *others: Any, **more: Any) -> Any:
        if isinstance(outputs, list):
            calls.append(len(outputs))
            if calls == [2, 2]:  # of the second step
                raise error
        return grad(outputs, *others, **more)

    monkeypatch.setattr("rankopt.training.joint.joint_passes.torch.autograd.grad", tight)
    specs = [
        tiny_spec(model__name=str(dropping_model), seed=seed, training__steps=4, allocator__name=allocator)
        for seed in range(2)
    ]
    both(specs, tmp_path)
    assert calls == [2, 2, 1, 1, 1, 1]
    calls.clear()
    said: list[str] = []
    run_trials(specs, [tmp_path / "x", tmp_path / "y"], say=said.append)
    assert len(said) == 1
    assert word in said[0]


def test_a_pass_of_ones_own_that_fails(
    tiny_spec: Spec, dropping_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails that trial: the others' results are those that they have alone."""
    from rankopt.training.joint.together import Lane

    specs = [tiny_spec(model__name=str(dropping_model), seed=seed, training__steps=4) for seed in range(3)]
    alone = [run_trial(spec, tmp_path / f"alone{spec.seed}") for spec in specs]
    own, passes = Lane.own, list[int]()

    def tight(lane: Lane, inputs: dict[str, Tensor]) -> Tensor:
        if lane.adapted.net.training and torch.is_grad_enabled():
            passes.append(1)
            if len(passes) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return own(lane, inputs)

    def never(stack: Stack, parts: Any, training: bool) -> list[Tensor]:
        raise RuntimeError("no joint passes")

    monkeypatch.setattr(Lane, "own", tight)
    monkeypatch.setattr(Stack, "forward", never)
    with pytest.raises(torch.OutOfMemoryError):
        run_trials(specs, [tmp_path / str(seed) for seed in range(3)])
    ended = [latest(tmp_path / str(seed) / "checkpoints") for seed in range(3)]
    assert [found is not None for found in ended] == [True, False, True]
    for seed in (0, 2):
        ours, theirs = content(tmp_path / str(seed)), content(tmp_path / f"alone{seed}")
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            if isinstance(value, Tensor):
                torch.testing.assert_close(value, theirs[name], msg=name)
    assert all(result.status == "complete" for result in alone)


def test_padding_on_the_left(
    tiny_spec: Spec, tmp_path: Path, tiny_tokenizer: Any, sizes: list[tuple[bool, int]]
) -> None:
    """A batch keeps its own, and the joint one is on the right."""
    model = save(tmp_path / "left", tiny_tokenizer)
    config = model / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"padding_side": "left"}))
    assert load_tokenizer(str(model)).padding_side == "left"
    both([tiny_spec(model__name=str(model), seed=seed, training__steps=4) for seed in range(2)], tmp_path)
    assert (True, 2) in sizes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu(precision: str, tiny_spec: Spec, dropping_model: Path, tmp_path: Path) -> None:
    """The same there, where kernels sum in other orders for other shapes."""
    specs = [
        tiny_spec(model__name=str(dropping_model), seed=seed, allocator__name=name, training__precision=precision)
        for seed, name in enumerate(("uniform", "adalora", "dylora"))
    ]
    alone = [run_trial(spec, tmp_path / f"a{seed}") for seed, spec in enumerate(specs)]
    together = run_trials(specs, [tmp_path / f"t{seed}" for seed in range(3)])
    for a, b in zip(alone, together, strict=True):
        tolerance = 1e-3 if precision == "fp32" else 0.05
        assert [e.loss for e in a.losses] == pytest.approx([e.loss for e in b.losses], abs=tolerance)
