"""One trial, end to end, for every allocator of the table: what it yields, and that a kill changes nothing of it."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from probing_allocators import PROBING
from trial_results import checkpoint_steps, with_lr, without_seconds

from rankopt.allocators import ALLOCATORS
from rankopt.core.result import Progress, TrialResult
from rankopt.core.trial_spec import TrialSpec
from rankopt.lowrank.export import cut_peft
from rankopt.training import trial as trial_module
from rankopt.training.checkpoint import latest, step_of
from rankopt.training.trial import InterruptedTrialError, run_trial
from rankopt.training.trial_callback import TrialCallback

Spec = Callable[..., TrialSpec]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, snapshot: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """What every training in this process ends with: factors, gates, masks, head, the allocator's state, moments and
    the record, bit for bit."""
    ends: list[dict[str, Any]] = []

    class Watched(TrialCallback):
        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            super().on_train_end(*args, **kwargs)
            net, optimizer, layers = kwargs["model"], kwargs["optimizer"], self.hooks.layers
            trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
            ends.append(
                {
                    "step": args[1].global_step,
                    "weights": snapshot(trained),
                    "masks": {n: (snapshot(y.m), y.rank, y.initial, y.s, y.frozen) for n, y in layers.items()},
                    "state": snapshot(self.hooks.state),
                    "moments": snapshot([optimizer.state[p] for p in trained.values()]),
                    "record": snapshot([self.losses, self.hooks.ranks, self.sums]),
                }
            )

    monkeypatch.setattr(trial_module, "TrialCallback", Watched)
    return ends


@pytest.mark.parametrize("name", ALLOCATORS)
def test_every_allocator_end_to_end(name: str, tiny_spec: Spec, tmp_path: Path) -> None:
    """A complete result that survives JSON: points within budget, the first one the trial's own; scores on both splits
    recomputed from the saved logits; counts, trace, cost and provenance filled."""
    spec = tiny_spec(allocator__name=name, training__steps=8)
    seen: list[Progress] = []
    result = run_trial(spec, tmp_path, observe=seen.append)
    assert result.status == "complete", result.reason
    assert TrialResult.model_validate_json(result.model_dump_json()) == result
    assert TrialResult.model_validate_json(json.dumps(result.model_dump(mode="json"))) == result
    assert result.key == spec.key
    assert TrialSpec.model_validate_json(json.dumps(result.spec)) == spec
    assert len(result.layers) == 12
    limit = 2 * len(result.layers)
    assert result.points[0].label == "budget"
    assert len({point.label for point in result.points}) == len(result.points)
    arrays = np.load(tmp_path / "predictions.npz")
    for point in result.points:
        assert set(point.pattern) == set(result.layers)
        assert point.pattern.total <= limit
        assert point.kept == point.pattern.parameters(result.layers)
        for split, scores in (("search", point.search), *point.report.items()):
            logits, labels = arrays[f"logits/{point.label}/{split}"], arrays[f"labels/{split}"]
            assert logits.shape == (24, 2)
            assert scores["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())
    assert result.parameters is not None
    assert result.parameters.kept == result.own.kept <= result.parameters.trained
    assert result.parameters.head == 2 * 32 + 2
    assert result.cost is not None
    assert result.cost.steps == 8
    assert result.cost.tokens <= result.cost.padded_tokens
    assert [event.step for event in result.losses] == list(range(1, 9))
    assert result.ranks[0].step == 0
    assert {"data", "model", "code", "torch", "threads"} <= set(result.environment)
    assert [p.step for p in seen if p.stage == "train"] == list(range(1, 9))
    assert [p.step for p in seen if p.stage == "evaluate"] == list(range(1, len(result.points) + 1))


def test_trained_parameters_are_the_peak(tiny_spec: Spec, tmp_path: Path) -> None:
    """Components that move to larger layers, at a constant number of ranks, raise it above the start."""
    allocator = {"name": "elalora", "warmup": 0, "interval": 1, "final": 2}
    result = run_trial(tiny_spec(allocator=allocator, training__steps=12), tmp_path)
    assert result.parameters is not None
    costs = [result.layers[name].cost + 1 for name in result.layers]  # a gate each
    totals = [sum(r * cost for r, cost in zip(event.ranks, costs, strict=True)) for event in result.ranks]
    assert result.parameters.trained == max(totals)
    assert len(set(totals)) > 1


@pytest.fixture
def by_peft(tiny_model: Path, tiny_glue: Path, tiny_tokenizer: Any) -> Callable[[Path], tuple[Any, Any]]:
    """What PEFT makes of an adapter's folder: logits of the validation split, with the adapter and without it."""
    import pandas as pd
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    sentences = pd.read_parquet(tiny_glue / "sst2" / "validation.parquet")["sentence"].tolist()
    inputs = tiny_tokenizer(sentences, padding=True, return_tensors="pt")

    @torch.no_grad()
    def logits(folder: Path) -> tuple[Any, Any]:
        base = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
        model = PeftModel.from_pretrained(base, folder).eval()
        adapted = model(**inputs).logits.numpy()
        with model.disable_adapter():
            return adapted, model(**inputs).logits.numpy()

    return logits


@pytest.mark.parametrize("name", ALLOCATORS)
def test_the_exported_adapter_is_the_scored_model(
    name: str, tiny_spec: Spec, tmp_path: Path, by_peft: Callable[[Path], tuple[Any, Any]]
) -> None:
    """PEFT, loading the adapter on the plain model, gives the logits saved for the trial's own pattern."""
    spec = tiny_spec(allocator__name=name, training__steps=8, training__lr=2e-2)
    result = run_trial(spec, tmp_path)
    assert result.status == "complete", result.reason
    logits, plain = by_peft(tmp_path / "adapter")
    saved = np.load(tmp_path / "predictions.npz")["logits/budget/validation"]
    assert np.abs(logits - saved).max() < 1e-5
    if result.own.pattern.total:
        assert np.abs(plain - saved).max() > 1e-3, "the adapter must matter for this test to prove something"


def test_a_fine_tuned_head_in_another_label_order(tiny_spec: Spec, tiny_model: Path, tmp_path: Path) -> None:
    """Training, scores and the exported adapter agree with the names in the checkpoint's config."""
    import pandas as pd
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    order = {0: "POSITIVE", 1: "NEGATIVE"}
    base, folder = tmp_path / "base", tmp_path / "trial"
    names = {"id2label": order, "label2id": {name: index for index, name in order.items()}}
    AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2, **names).save_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(base)
    spec = tiny_spec(model__name=str(base), training__steps=80, training__lr=1e-2)
    result = run_trial(spec, folder)
    assert result.score("report") > 0.8
    # as a user does: the names are those of the checkpoint, and of the config beside the adapter
    rows = pd.read_parquet(Path(spec.task.data_dir) / "sst2" / "validation.parquet")
    inputs = tokenizer(rows["sentence"].tolist(), padding=True, return_tensors="pt")
    for config in (AutoConfig.from_pretrained(base), AutoConfig.from_pretrained(folder / "adapter")):
        assert config.id2label == order
        model = PeftModel.from_pretrained(
            AutoModelForSequenceClassification.from_pretrained(base, config=config), folder / "adapter"
        )
        with torch.no_grad():
            logits = model.eval()(**inputs).logits.numpy()
        answers = [config.id2label[index].lower() for index in logits.argmax(1)]
        expected = ["positive" if label else "negative" for label in rows["label"]]
        assert np.mean([a == b for a, b in zip(answers, expected, strict=True)]) == result.score("report")
    saved = np.load(folder / "predictions.npz")["logits/budget/validation"]
    assert np.abs(saved - logits[:, [1, 0]]).max() < 1e-5, "predictions are in the task's order"


def test_a_decoder_without_a_pad_token(tiny_spec: Spec, tiny_tokenizer: Any, tmp_path: Path) -> None:
    """The config beside the adapter has the pad token and the labels, so that a padded batch runs; a note says so."""
    from peft import PeftModel
    from tiny_models import tiny_config
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    base, folder = tmp_path / "base", tmp_path / "trial"
    AutoModel.from_config(tiny_config("gpt2", vocab_size=len(tiny_tokenizer))).save_pretrained(base)
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    tokenizer.save_pretrained(base)
    result = run_trial(tiny_spec(model__name=str(base), training__steps=4), folder)
    assert any("pad_token_id was not set" in note and "config.json" in note for note in result.notes)
    config = AutoConfig.from_pretrained(folder / "adapter")
    assert config.pad_token_id == 3
    assert config.id2label == {0: "negative", 1: "positive"}
    model = PeftModel.from_pretrained(
        AutoModelForSequenceClassification.from_pretrained(base, config=config), folder / "adapter"
    )
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 3]])
    assert model(input_ids=ids, attention_mask=torch.tensor([[1] * 4, [1, 1, 1, 0]])).logits.shape == (2, 2)


def test_what_came_before_a_restart_is_kept(
    tiny_spec: Spec, tmp_path: Path, by_peft: Callable[[Path], tuple[Any, Any]]
) -> None:
    """A super-network's own point is LoRA trained until its recovery, to rounding; its other points are cut from the
    adapter that recovered, as PEFT sees them too."""
    how: dict[str, Any] = {"budget": None, "model__scale": "unit", "model__dropout": 0.1, "training__lr": 2e-2}
    nested = {"name": "nested", "recovery": 5, "curve": [1.0], "looks": 3}
    result = run_trial(tiny_spec(allocator=nested, training__steps=14, **how), tmp_path / "nested")
    assert result.status == "complete", result.reason
    how["budget"] = {"mean_rank": 4}
    alone = run_trial(tiny_spec(allocator={"name": "uniform"}, training__steps=9, **how), tmp_path / "uniform")
    assert result.own.pattern == alone.own.pattern
    saved, expected = (np.load(tmp_path / name / "predictions.npz") for name in ("nested", "uniform"))
    assert np.abs(saved["logits/budget/validation"] - expected["logits/budget/validation"]).max() < 1e-4

    assert {point.adapter for point in result.points[1:]} == {"recovered"}
    cut = next(point for point in result.points if point.label == "uniform 1")
    for adapter, same in (("recovered", True), ("adapter", False)):
        cut_peft(tmp_path / "nested" / adapter, cut.pattern)
        logits, _ = by_peft(tmp_path / "nested" / adapter)
        far = float(np.abs(logits - saved["logits/uniform 1/validation"]).max())
        assert far < 1e-5 if same else far > 1e-3


def test_the_task_is_learned(tiny_spec: Spec, tmp_path: Path) -> None:
    """Enough steps of uniform LoRA beat the majority class clearly on both held-out splits."""
    result = run_trial(tiny_spec(training__steps=80, training__lr=1e-2), tmp_path)
    assert result.score("search") > 0.8
    assert result.score("report") > 0.8


def test_a_regression(tiny_spec: Spec, tmp_path: Path) -> None:
    """An STS-B shaped task trains a single output on squared error and is scored by correlations of it."""
    result = run_trial(tiny_spec(task__name="stsb", training__steps=15, training__lr=1e-2), tmp_path)
    assert result.status == "complete", result.reason
    assert result.metrics == ("pearson", "spearman")
    arrays = np.load(tmp_path / "predictions.npz")
    logits, labels = arrays["logits/budget/validation"], arrays["labels/validation"]
    assert logits.shape == (24, 1)
    assert result.score() == pytest.approx(np.corrcoef(logits[:, 0], labels)[0, 1], abs=1e-6)
    assert result.losses[-1].loss < result.losses[0].loss


def test_the_papers_protocol(tiny_spec: Spec, tmp_path: Path) -> None:
    """Under "paper" everything is trained on, and the search score is the report score."""
    result = run_trial(
        tiny_spec(task__protocol="paper", task__search_examples=None, training={"epochs": 1.0, "batch_size": 16}),
        tmp_path,
    )
    assert result.own.search == result.own.report["validation"]
    assert result.cost is not None
    assert result.cost.steps == 7, "104 rows, none cut off, in batches of 16"


def test_the_same_twice(tiny_spec: Spec, tmp_path: Path, watched: list[dict[str, Any]]) -> None:
    """Same spec, same everything but the seconds, whatever the global generators hold; another seed, another result."""
    spec = tiny_spec(allocator__name="adalora", model__dropout=0.2, training__steps=9)
    first = run_trial(spec, tmp_path / "a")
    torch.rand(3), np.random.rand(3)
    second = run_trial(spec, tmp_path / "b")
    assert without_seconds(first) == without_seconds(second)
    assert watched[0] == watched[1]
    run_trial(tiny_spec(allocator__name="adalora", model__dropout=0.2, training__steps=9, seed=1), tmp_path / "c")
    assert watched[0]["weights"] != watched[2]["weights"]


def test_common_random_numbers(tiny_spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All allocators of a seed see the same batches in the same order and start from the same head."""
    batches: dict[str, list[Any]] = {}
    heads: dict[str, bytes] = {}
    step = trial_module.TrialTrainer.training_step
    load = trial_module.load_adapted
    now = ""

    def watch(self: Any, model: Any, inputs: Any, *others: Any) -> Any:
        batches.setdefault(now, []).append(inputs["input_ids"].tolist())
        return step(self, model, inputs, *others)

    def watch_head(*args: Any) -> Any:
        adapted = load(*args)
        heads[now] = adapted.net.classifier.weight.detach().numpy().tobytes()
        return adapted

    monkeypatch.setattr(trial_module.TrialTrainer, "training_step", watch)
    monkeypatch.setattr(trial_module, "load_adapted", watch_head)
    for now in ALLOCATORS:
        run_trial(tiny_spec(allocator__name=now, training__steps=7), tmp_path / now)
    assert len({json.dumps(seen) for seen in batches.values()}) == 1
    assert len(batches["uniform"]) >= 7
    assert len(set(heads.values())) == 1


def test_cost_counts_the_tokens_that_went_through(tiny_spec: Spec, tmp_path: Path, monkeypatch: Any) -> None:
    """Tokens in the result equal the tokens of all training batches, with accumulation and a remainder."""
    step = trial_module.TrialTrainer.training_step
    seen = [0, 0]

    def watch(self: Any, model: Any, inputs: Any, *others: Any) -> Any:
        seen[0] += int(inputs["attention_mask"].sum())
        seen[1] += inputs["attention_mask"].numel()
        return step(self, model, inputs, *others)

    monkeypatch.setattr(trial_module.TrialTrainer, "training_step", watch)
    result = run_trial(tiny_spec(training={"epochs": 2.0, "batch_size": 12, "accumulation": 3}), tmp_path)
    assert result.cost is not None
    assert [result.cost.tokens, result.cost.padded_tokens] == seen


def test_a_score_is_told_before_the_checkpoint_that_holds_it(tiny_spec: Spec, tmp_path: Path) -> None:
    """Killed as it is told, the trial continues from the checkpoint before, and tells the same score again; killed
    later, it tells what the checkpoint holds. Either way each score is told in order."""
    seen: list[tuple[int, dict[str, float]]] = []

    class KilledError(BaseException):
        pass

    def observe(progress: Progress) -> None:
        if progress.stage == "score":
            seen.append((progress.step, progress.values))
            if len(seen) == 2:
                raise KilledError

    with pytest.raises(KilledError):
        run_trial(tiny_spec(), tmp_path, observe=observe, checkpoint_steps=1, evaluations=2)
    checkpoint = latest(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert step_of(checkpoint) == 7  # the second evaluation is after step 8
    killed, seen = seen, [(0, {})] * 3
    run_trial(tiny_spec(), tmp_path, observe=observe, checkpoint_steps=1, evaluations=2)
    assert [step for step, _ in killed] == [4, 8]
    assert seen[3:] == killed


@pytest.mark.parametrize("name", ALLOCATORS)
def test_divergence_is_a_recorded_failure(name: str, tiny_spec: Spec, tmp_path: Path) -> None:
    """A learning rate of 1e30 ends at once in a failed result that says at which step; no points, no artifacts."""
    spec = with_lr(tiny_spec(allocator__name=name, training__warmup=0.0, training__steps=10), 1e30)
    result = run_trial(spec, tmp_path)
    assert result.status == "failed"
    assert "\n" not in result.reason
    assert "at step" in result.reason
    assert not result.points
    assert not (tmp_path / "adapter").exists()
    assert TrialResult.model_validate_json(result.model_dump_json()) == result


def test_a_poisoned_weight_is_found_at_the_first_step(tiny_spec: Spec, tmp_path: Path, monkeypatch: Any) -> None:
    """A NaN anywhere in the model stops the trial at step 1."""
    load = trial_module.load_adapted

    def poison(*args: Any) -> Any:
        adapted = load(*args)
        norm = adapted.net.bert.encoder.layer[0].output.LayerNorm  # its weight is shared with later trials
        norm.weight = torch.nn.Parameter(torch.full_like(norm.weight, float("nan")), requires_grad=False)
        return adapted

    monkeypatch.setattr(trial_module, "load_adapted", poison)
    result = run_trial(tiny_spec(), tmp_path)
    assert result.status == "failed"
    assert result.reason == "the loss became nan at step 1 of 12"


@pytest.mark.parametrize("name", ["uniform", "adalora", "spectral"])
def test_an_infinite_gradient_stops_the_step_it_happens_in(
    name: str, tiny_spec: Spec, tmp_path: Path, monkeypatch: Any
) -> None:
    """The loss may be finite where its gradient is not: the step is recorded as a failure before the allocator measures
    anything, also when it is the last step of all."""
    load = trial_module.load_adapted

    def overflow(*args: Any) -> Any:
        adapted = load(*args)
        calls = []

        def hook(gradient: Any) -> Any:
            calls.append(1)
            return gradient * (float("inf") if len(calls) == 12 else 1.0)

        adapted.net.classifier.bias.register_hook(hook)
        return adapted

    monkeypatch.setattr(trial_module, "load_adapted", overflow)
    result = run_trial(tiny_spec(allocator__name=name), tmp_path)
    assert (result.status, result.reason) == ("failed", "the weights are no longer finite at step 12 of 12")


def test_a_model_that_breaks_on_held_out_data_fails(tiny_spec: Spec, tmp_path: Path, monkeypatch: Any) -> None:
    """Outputs that are not finite after training are a failure, not a score."""
    finish = ALLOCATORS["uniform"].finish

    def poison(self: Any, state: Any, layers: Any) -> Any:
        next(iter(layers.values())).A.data[0, 0] = float("inf")
        return finish(self, state, layers)

    monkeypatch.setattr(ALLOCATORS["uniform"], "finish", poison)
    result = run_trial(tiny_spec(), tmp_path)
    assert result.status == "failed"
    assert "not finite" in result.reason


REFUSED = {
    "budget must be at most 48 ranks for 12 layers of model.max_rank 4, got 100": {"budget": {"ranks": 100}},
    "budget must be given for the allocator 'uniform'": {"budget": None},
    "allocator.name must be one of uniform,": {"allocator": {"name": "nobody"}},
    "model.scale must be one of published, init, rs, unit for the allocator 'adalora', got 'active'": {
        "allocator": {"name": "adalora"},
        "model__scale": "active",
    },
    "allocator.warmup + allocator.final must be fewer than the trial's 12 steps": {
        "allocator": {"name": "adalora", "warmup": 6, "final": 6}
    },
    "task.search_examples must be between 1 and 103": {"task__search_examples": 104},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused(message: str, tiny_spec: Spec, tmp_path: Path) -> None:
    """A wrong spec is one line that names the field, the rule and the value."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        run_trial(tiny_spec(**REFUSED[message]), tmp_path)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


NURSERY = """
import json, os, signal, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from rankopt.core.trial_spec import TrialSpec, decode
from rankopt.training import trainer
from rankopt.training.trial import run_trial

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        def observe(progress):
            if progress.stage == "train" and progress.step == order["at"]:
                kill()
        if order["before_seal"]:
            seal = trainer.seal
            trainer.seal = lambda f: kill() if f.name.endswith("-%d" % order["before_seal"]) else seal(f)
        spec = decode(TrialSpec, order["spec"])
        run_trial(spec, Path(order["folder"]), observe=observe, checkpoint_steps=order["every"])
        os._exit(0)
    print(json.dumps(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def run_and_kill() -> Iterator[Callable[..., None]]:
    """Runs a trial in a process of its own, which kills itself with SIGKILL right after a step, or between the last
    byte of a checkpoint and its seal. One nursery process imports once and forks."""
    nursery = subprocess.Popen(
        [sys.executable, "-c", NURSERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
    )
    assert nursery.stdin is not None
    assert nursery.stdout is not None

    def run(spec: TrialSpec, folder: Path, every: int, at: int = 0, before_seal: int = 0) -> None:
        order = {"spec": spec.model_dump(mode="json"), "folder": str(folder), "every": every}
        print(json.dumps(order | {"at": at, "before_seal": before_seal}), file=nursery.stdin, flush=True)
        status = json.loads(nursery.stdout.readline())
        assert os.WIFSIGNALED(status), status
        assert os.WTERMSIG(status) == signal.SIGKILL

    yield run
    nursery.stdin.close()
    nursery.wait(timeout=30)


KILLS: dict[str, tuple[dict[str, Any], int, int]] = {
    # name: the trial, checkpoint interval, the step after which it dies; five steps are an epoch
    **{name: ({"allocator": {"name": name}}, 3, 8) for name in ALLOCATORS},
    "at the end of an epoch": ({"allocator": {"name": "adalora"}}, 5, 7),
    "before the first checkpoint": ({"allocator": {"name": "adalora"}}, 5, 4),
    "adalora in its final phase": ({"allocator": {"name": "adalora", "interval": 2}}, 5, 12),
    "adalora, dropout and accumulation": (
        {"allocator": {"name": "adalora", "interval": 1}, "model__dropout": 0.3, "training__accumulation": 2},
        4,
        6,
    ),
    "dylora, dropout, every layer its own draw": (
        {"allocator": {"name": "dylora", "draw": "layer", "frozen": False}, "model__dropout": 0.3},
        3,
        8,
    ),
    "spectral, before its cut": ({"allocator": {"name": "spectral", "recovery": 6}}, 3, 7),
    "spectral, after its cut": ({"allocator": {"name": "spectral", "recovery": 6}, "model__dropout": 0.2}, 5, 12),
    "nested, after its cut": ({"allocator": {"name": "nested", "recovery": 6}}, 3, 11),
    "a parameter budget": ({"allocator": {"name": "adalora"}, "budget": {"parameters": 1500}}, 3, 8),
    "regression": ({"allocator": {"name": "spectral", "recovery": 5}, "task__name": "stsb"}, 4, 11),
}


@pytest.mark.parametrize("case", KILLS)
def test_a_kill_changes_nothing(
    case: str, tiny_spec: Spec, tmp_path: Path, run_and_kill: Callable[..., None], watched: list[dict[str, Any]]
) -> None:
    """Killed mid-schedule in another process and run again here, a trial ends with the weights, masks, allocator state,
    moments, record, result and predictions of the run that nobody disturbed, bit for bit."""
    changes, every, at = KILLS[case]
    spec = tiny_spec(training__steps=14, **changes)
    whole = run_trial(spec, tmp_path / "whole", checkpoint_steps=every)
    assert whole.status == "complete", whole.reason
    run_and_kill(spec, tmp_path / "killed", every, at=at)
    last = at // every * every
    assert max(checkpoint_steps(tmp_path / "killed"), default=0) == last < at, (
        "the kill must lie between two checkpoints"
    )
    seen: list[int] = []
    again = run_trial(spec, tmp_path / "killed", checkpoint_steps=every, observe=lambda p: seen.append(p.step))
    assert seen[0] == last + 1, "it continued from its checkpoint"
    assert watched[0] == watched[1]
    assert without_seconds(again) == without_seconds(whole)
    first, second = (np.load(tmp_path / folder / "predictions.npz") for folder in ("whole", "killed"))
    assert sorted(first) == sorted(second)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_three_deaths_change_nothing(
    tiny_spec: Spec, tmp_path: Path, run_and_kill: Callable[..., None], watched: list[dict[str, Any]]
) -> None:
    """Killed between two checkpoints, then while a checkpoint is written (complete but unsealed), then right after one
    was taken up again: still the same end."""
    spec = tiny_spec(allocator__name="adalora", model__dropout=0.1, training__steps=14)
    whole = run_trial(spec, tmp_path / "whole", checkpoint_steps=3)
    folder = tmp_path / "killed"
    run_and_kill(spec, folder, 3, at=5)
    run_and_kill(spec, folder, 3, before_seal=9)
    assert checkpoint_steps(folder)[-1] == 9
    run_and_kill(spec, folder, 3, at=7)
    assert checkpoint_steps(folder)[-1] == 6, "the unsealed checkpoint was not used"
    again = run_trial(spec, folder, checkpoint_steps=3)
    assert watched[0] == watched[1]
    assert without_seconds(again) == without_seconds(whole)


@pytest.mark.parametrize("at", [1, 5, 8, 13, 14])
def test_stopping_changes_nothing(at: int, tiny_spec: Spec, tmp_path: Path, watched: list[dict[str, Any]]) -> None:
    """Asked to stop after a step (also the last of an epoch, and the very last), a trial checkpoints that step and
    raises; run again, it does the remaining steps and ends as if nobody had asked."""
    spec = tiny_spec(allocator={"name": "spectral", "recovery": 6}, training__steps=14)
    whole = run_trial(spec, tmp_path / "whole", checkpoint_steps=100)
    steps: list[int] = []
    with pytest.raises(InterruptedTrialError):
        run_trial(
            spec, tmp_path / "stopped", checkpoint_steps=100,
            observe=lambda p: steps.append(p.step), stop=lambda: len(steps) == at,
        )  # fmt: skip
    assert steps[-1] == at
    assert not (tmp_path / "stopped" / "adapter").exists()
    again = run_trial(
        spec, tmp_path / "stopped", observe=lambda p: steps.append(p.step) if p.stage == "train" else None
    )
    assert steps == list(range(1, 15))
    if at < 14:
        assert watched[0] == watched[2]
    assert without_seconds(again) == without_seconds(whole)
    assert (tmp_path / "stopped" / "adapter").exists()


def test_stopping_while_scoring(tiny_spec: Spec, tmp_path: Path, watched: list[dict[str, Any]]) -> None:
    """A request that comes during evaluation is heard before the next batch, and the trial can be run again."""
    spec = tiny_spec(allocator__name="dylora", training__steps=10)
    whole = run_trial(spec, tmp_path / "whole")
    seen: list[str] = []
    with pytest.raises(InterruptedTrialError):
        run_trial(spec, tmp_path / "stopped", observe=lambda p: seen.append(p.stage), stop=lambda: "evaluate" in seen)
    assert seen.count("evaluate") == 1
    seen.clear()
    again = run_trial(spec, tmp_path / "stopped", observe=lambda p: seen.append(p.stage))
    assert set(seen) == {"evaluate"}, "nothing is trained twice"
    assert without_seconds(again) == without_seconds(whole)


def test_a_corrupt_checkpoint_is_one_line(tiny_spec: Spec, tmp_path: Path) -> None:
    """Damage is refused before training, in one line, and following its advice works."""
    spec, steps = tiny_spec(training__steps=9), [0]
    with pytest.raises(InterruptedTrialError):
        run_trial(
            spec, tmp_path, checkpoint_steps=3,
            observe=lambda p: steps.append(p.step), stop=lambda: steps[-1] == 7,
        )  # fmt: skip
    damaged = tmp_path / "checkpoints" / "checkpoint-7"
    (damaged / "optimizer.pt").write_bytes(b"nothing")
    with pytest.raises(OSError, match=r"checkpoint-7 is corrupt: optimizer\.pt .* continues from step 6"):
        run_trial(spec, tmp_path)
    shutil.rmtree(damaged)
    seen: list[int] = []
    assert run_trial(spec, tmp_path, observe=lambda p: seen.append(p.step)).status == "complete"
    assert seen[0] == 7


def test_a_disk_that_is_full_is_no_failure_of_the_trial(tiny_spec: Spec, tmp_path: Path, monkeypatch: Any) -> None:
    """torch.save calls a full disk a RuntimeError; the trial raises the OSError that it is, with the place, and the
    checkpoint that could not be finished is not used later."""
    from rankopt.training import trainer

    save = trainer.save_network

    def full(adapted: Any, folder: Path, **others: Any) -> None:
        if folder.name == "checkpoint-6":
            folder.mkdir()
            raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 704 vs 598\nmore")
        save(adapted, folder, **others)

    monkeypatch.setattr(trainer, "save_network", full)
    with pytest.raises(OSError, match="cannot write the checkpoint") as caught:
        run_trial(tiny_spec(), tmp_path, checkpoint_steps=3)
    assert "\n" not in str(caught.value)
    assert caught.value.filename == str(tmp_path / "checkpoints")
    monkeypatch.undo()
    seen: list[int] = []
    assert run_trial(tiny_spec(), tmp_path, observe=lambda p: seen.append(p.step)).status == "complete"
    assert seen[0] == 4


def test_few_checkpoints_are_kept(tiny_spec: Spec, tmp_path: Path) -> None:
    """Two at most, and none of the frozen model's weights in them: less than the factors' moments would explain."""
    run_trial(tiny_spec(training__steps=12), tmp_path, checkpoint_steps=2)
    assert checkpoint_steps(tmp_path) == [10, 12]
    saved = torch.load(tmp_path / "checkpoints" / "checkpoint-12" / "adapter.pt", weights_only=True)
    assert set(saved) == {"layers", "head", "state", "records", "tuners"}
    assert not list((tmp_path / "checkpoints" / "checkpoint-12").glob("*.safetensors"))


def test_checkpoints_by_the_clock(tiny_spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a number of steps they follow the clock: a trial shorter than its interval writes only its last one. One
    that is asked to stop always does."""
    from rankopt.training import trial_callback

    spec = tiny_spec(training__steps=6)
    run_trial(spec, tmp_path / "short")
    assert checkpoint_steps(tmp_path / "short") == [6]
    with pytest.raises(InterruptedTrialError):
        run_trial(spec, tmp_path / "stopped", stop=lambda: True)
    assert checkpoint_steps(tmp_path / "stopped") == [1]
    monkeypatch.setattr(trial_callback, "SECONDS", 0.0)
    run_trial(spec, tmp_path / "long")
    assert checkpoint_steps(tmp_path / "long") == [5, 6]


@pytest.fixture
def probing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One row per test allocator that looks at data before training; returns a record of the calls of `prepare`."""
    calls: list[str] = []
    for name, kind in PROBING.items():

        class Watched(kind):  # type: ignore[misc, valid-type]
            def prepare(self, state: Any, layers: Any, probe: Any) -> None:
                calls.append(type(self).__mro__[1].__name__)
                super().prepare(state, layers, probe)

        monkeypatch.setitem(ALLOCATORS, name, Watched)
    return calls


@pytest.mark.parametrize("name", PROBING)
def test_looking_at_data_before_training(
    name: str, tiny_spec: Spec, tmp_path: Path, probing: list[str], by_peft: Callable[[Path], tuple[Any, Any]]
) -> None:
    """With nothing but its file and its row, an allocator sets ranks and A from training data, its cost is counted, and
    its adapter exports."""
    spec = tiny_spec(allocator={"name": name, "batches": 3}, training__steps=8, training__lr=2e-2)
    result = run_trial(spec, tmp_path)
    assert result.status == "complete", result.reason
    assert len(probing) == 1
    assert len(set(result.own.pattern.values())) > 1, "the data decided the ranks"
    assert result.own.pattern.total == 24
    assert dict(zip(result.layers, result.ranks[0].ranks, strict=True)) == result.own.pattern, "before step 1"
    assert result.cost is not None
    assert (result.cost.prepare_batches, result.cost.prepare_passes) == (3, 3 if name == "activations" else 6)
    assert 0 < result.cost.prepare_seconds < result.cost.train_seconds
    saved = np.load(tmp_path / "predictions.npz")["logits/budget/validation"]
    assert np.abs(by_peft(tmp_path / "adapter")[0] - saved).max() < 1e-5


@pytest.mark.parametrize("scale", ["published", "rs"])
@pytest.mark.parametrize("name", PROBING)
def test_prepared_once(
    name: str, scale: str, tiny_spec: Spec, tmp_path: Path, probing: list[str], watched: list[dict[str, Any]]
) -> None:
    """A run that continues from a checkpoint does not prepare again, and ends with the same bits; one that was stopped
    before its first checkpoint does."""
    spec = tiny_spec(allocator__name=name, model__dropout=0.2, model__scale=scale)
    whole = run_trial(spec, tmp_path / "whole")
    steps: list[int] = []
    with pytest.raises(InterruptedTrialError):
        run_trial(spec, tmp_path / "cut", observe=lambda p: steps.append(p.step), stop=lambda: steps[-1] == 5)
    again = run_trial(spec, tmp_path / "cut")
    assert len(probing) == 2
    assert without_seconds(again) == without_seconds(whole)
    assert whole.cost is not None
    assert again.cost is not None
    assert again.cost.prepare_passes == whole.cost.prepare_passes > 0
    assert watched[2] == watched[0]
    shutil.rmtree(tmp_path / "cut" / "checkpoints")
    assert without_seconds(run_trial(spec, tmp_path / "cut")) == without_seconds(whole)
    assert len(probing) == 3


def test_an_allocator_that_looks_at_nothing_costs_nothing(tiny_spec: Spec, tmp_path: Path) -> None:
    """The default `prepare` reads no batch."""
    cost = run_trial(tiny_spec(), tmp_path).cost
    assert cost is not None
    assert (cost.prepare_batches, cost.prepare_passes) == (0, 0)


def test_looking_changes_nothing(tiny_spec: Spec, tmp_path: Path) -> None:
    """Scored three times on the way, a trial shows a score, its parameters and an error at equal distances, and ends
    with the bits of the trial that nobody looked at."""
    spec = tiny_spec(allocator={"name": "uniform"})
    seen: list[Progress] = []
    looked = run_trial(spec, tmp_path / "looked", observe=seen.append, evaluations=3)
    shown = [progress for progress in seen if progress.stage == "score"]
    assert [(progress.step, progress.steps) for progress in shown] == [(3, 12), (6, 12), (9, 12)]
    assert all(set(progress.values) == {"score", "parameters", "error"} for progress in shown)
    assert {progress.values["parameters"] for progress in shown} == {looked.own.kept}
    assert shown[0].values["error"] == pytest.approx(0.5 / 24**0.5)
    assert without_seconds(looked) == without_seconds(run_trial(spec, tmp_path / "alone"))


def test_what_was_shown_is_shown_again_after_a_kill(tiny_spec: Spec, tmp_path: Path) -> None:
    """A study that takes an interrupted trial up again has not seen its scores; they come first, the same ones."""
    spec = tiny_spec(allocator={"name": "uniform"})
    whole: list[Progress] = []
    run_trial(spec, tmp_path / "whole", observe=whole.append, evaluations=3)
    steps: list[Progress] = []
    with pytest.raises(InterruptedTrialError):
        run_trial(spec, tmp_path / "cut", observe=steps.append, stop=lambda: len(steps) > 8, evaluations=3)
    again: list[Progress] = []
    run_trial(spec, tmp_path / "cut", observe=again.append, evaluations=3)
    assert steps
    assert [p for p in again if p.stage == "score"] == [p for p in whole if p.stage == "score"]
