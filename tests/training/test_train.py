"""A training that diverges, is stopped or is killed: what is recorded, and that nothing else changes."""

from __future__ import annotations

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
from trial_results import checkpoint_steps, with_lr, without_seconds

from rankopt.allocators import ALLOCATORS
from rankopt.core.progress import Control, Progress
from rankopt.core.result import TrialResult
from rankopt.core.trial_spec import TrialSpec
from rankopt.training import prepare as prepare_module
from rankopt.training.checkpoint import latest, step_of
from rankopt.training.train import InterruptedTrialError
from rankopt.training.trial import run_trial

Spec = Callable[..., TrialSpec]


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
        run_trial(tiny_spec(), tmp_path, Control(observe, checkpoint_steps=1, evaluations=2))
    checkpoint = latest(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert step_of(checkpoint) == 7  # the second evaluation is after step 8
    killed, seen = seen, [(0, {})] * 3
    run_trial(tiny_spec(), tmp_path, Control(observe, checkpoint_steps=1, evaluations=2))
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
    load = prepare_module.load_adapted

    def poison(*args: Any) -> Any:
        adapted = load(*args)
        norm = adapted.net.bert.encoder.layer[0].output.LayerNorm  # its weight is shared with later trials
        norm.weight = torch.nn.Parameter(torch.full_like(norm.weight, float("nan")), requires_grad=False)
        return adapted

    monkeypatch.setattr(prepare_module, "load_adapted", poison)
    result = run_trial(tiny_spec(), tmp_path)
    assert result.status == "failed"
    assert result.reason == "the loss became nan at step 1 of 12"


@pytest.mark.parametrize("name", ["uniform", "adalora", "spectral"])
def test_an_infinite_gradient_stops_the_step_it_happens_in(
    name: str, tiny_spec: Spec, tmp_path: Path, monkeypatch: Any
) -> None:
    """The loss may be finite where its gradient is not: the step is recorded as a failure before the allocator measures
    anything, also when it is the last step of all."""
    load = prepare_module.load_adapted

    def overflow(*args: Any) -> Any:
        adapted = load(*args)
        calls = []

        def hook(gradient: Any) -> Any:
            calls.append(1)
            return gradient * (float("inf") if len(calls) == 12 else 1.0)

        adapted.net.classifier.bias.register_hook(hook)
        return adapted

    monkeypatch.setattr(prepare_module, "load_adapted", overflow)
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


NURSERY = """
import gc, json, os, signal, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from rankopt.core.progress import Control
from rankopt.core.spec import decode
from rankopt.core.trial_spec import TrialSpec
from rankopt.training import trainer
from rankopt.training.trial import run_trial

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

gc.freeze()
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
        run_trial(spec, Path(order["folder"]), Control(observe, checkpoint_steps=order["every"]))
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
    whole = run_trial(spec, tmp_path / "whole", Control(checkpoint_steps=every))
    assert whole.status == "complete", whole.reason
    run_and_kill(spec, tmp_path / "killed", every, at=at)
    last = at // every * every
    assert max(checkpoint_steps(tmp_path / "killed"), default=0) == last < at, (
        "the kill must lie between two checkpoints"
    )
    seen: list[int] = []
    again = run_trial(spec, tmp_path / "killed", Control(checkpoint_steps=every, observe=lambda p: seen.append(p.step)))
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
    whole = run_trial(spec, tmp_path / "whole", Control(checkpoint_steps=3))
    folder = tmp_path / "killed"
    run_and_kill(spec, folder, 3, at=5)
    run_and_kill(spec, folder, 3, before_seal=9)
    assert checkpoint_steps(folder)[-1] == 9
    run_and_kill(spec, folder, 3, at=7)
    assert checkpoint_steps(folder)[-1] == 6, "the unsealed checkpoint was not used"
    again = run_trial(spec, folder, Control(checkpoint_steps=3))
    assert watched[0] == watched[1]
    assert without_seconds(again) == without_seconds(whole)


@pytest.mark.parametrize("at", [1, 5, 8, 13, 14])
def test_stopping_changes_nothing(at: int, tiny_spec: Spec, tmp_path: Path, watched: list[dict[str, Any]]) -> None:
    """Asked to stop after a step (also the last of an epoch, and the very last), a trial checkpoints that step and
    raises; run again, it does the remaining steps and ends as if nobody had asked."""
    spec = tiny_spec(allocator={"name": "spectral", "recovery": 6}, training__steps=14)
    whole = run_trial(spec, tmp_path / "whole", Control(checkpoint_steps=100))
    steps: list[int] = []
    with pytest.raises(InterruptedTrialError):
        run_trial(
            spec, tmp_path / "stopped",
            Control(lambda p: steps.append(p.step), lambda: len(steps) == at, checkpoint_steps=100),
        )  # fmt: skip
    assert steps[-1] == at
    assert not (tmp_path / "stopped" / "adapter").exists()
    again = run_trial(
        spec, tmp_path / "stopped", Control(lambda p: steps.append(p.step) if p.stage == "train" else None)
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
        run_trial(spec, tmp_path / "stopped", Control(lambda p: seen.append(p.stage), stop=lambda: "evaluate" in seen))
    assert seen.count("evaluate") == 1
    seen.clear()
    again = run_trial(spec, tmp_path / "stopped", Control(lambda p: seen.append(p.stage)))
    assert set(seen) == {"scoring", "evaluate"}, "nothing is trained twice"
    assert without_seconds(again) == without_seconds(whole)


def test_a_corrupt_checkpoint_is_one_line(tiny_spec: Spec, tmp_path: Path) -> None:
    """Damage is refused before training, in one line, and following its advice works."""
    spec, steps = tiny_spec(training__steps=9), [0]
    with pytest.raises(InterruptedTrialError):
        run_trial(
            spec, tmp_path, Control(lambda p: steps.append(p.step), lambda: steps[-1] == 7, checkpoint_steps=3),
        )  # fmt: skip
    damaged = tmp_path / "checkpoints" / "checkpoint-7"
    (damaged / "optimizer.pt").write_bytes(b"nothing")
    with pytest.raises(OSError, match=r"checkpoint-7 is corrupt: optimizer\.pt .* continues from step 6"):
        run_trial(spec, tmp_path)
    shutil.rmtree(damaged)
    seen: list[int] = []
    assert run_trial(spec, tmp_path, Control(lambda p: seen.append(p.step))).status == "complete"
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
        run_trial(tiny_spec(), tmp_path, Control(checkpoint_steps=3))
    assert "\n" not in str(caught.value)
    assert caught.value.filename == str(tmp_path / "checkpoints")
    monkeypatch.undo()
    seen: list[int] = []
    assert run_trial(tiny_spec(), tmp_path, Control(lambda p: seen.append(p.step))).status == "complete"
    assert seen[0] == 4


def test_few_checkpoints_are_kept(tiny_spec: Spec, tmp_path: Path) -> None:
    """Two at most, and none of the frozen model's weights in them: less than the factors' moments would explain."""
    run_trial(tiny_spec(training__steps=12), tmp_path, Control(checkpoint_steps=2))
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
        run_trial(spec, tmp_path / "stopped", Control(stop=lambda: True))
    assert checkpoint_steps(tmp_path / "stopped") == [1]
    monkeypatch.setattr(trial_callback, "SECONDS", 0.0)
    run_trial(spec, tmp_path / "long")
    assert checkpoint_steps(tmp_path / "long") == [5, 6]
