"""The third step of a trial: the trained model's scores at every final pattern, and the files that it leaves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankopt.core.pattern import RankPattern
from rankopt.core.progress import Control, Progress
from rankopt.core.result import Baseline, Cost, Parameters, Point, Retained, TrialResult
from rankopt.lowrank.layers import apply_pattern, shapes_of
from rankopt.tasks.problems.base import Answers
from rankopt.training.checkpoint import load_network
from rankopt.training.environment import environment
from rankopt.training.evaluate import Looks, predict
from rankopt.training.lane import Lane
from rankopt.training.measure import speed, stored_bytes
from rankopt.training.prepare import Prepared
from rankopt.training.retained import load_retained, scores_on_retained
from rankopt.training.spectra import update_spectra
from rankopt.training.train import InterruptedTrialError, Trained
from rankopt.tuners.saved import PEFT_CONFIG, save_all


def score(prepared: Prepared, trained: Trained, folder: Path, control: Control = Control()) -> TrialResult:
    """Score the trained model at every final pattern, and write what the trial leaves.

    Written to `folder`: `adapter`, what the tuners save, for LoRA a PEFT adapter of the trial's own pattern;
    `predictions.npz`, logits and labels of every example, point and split; and, where the allocator restarts the
    schedule, `recovered`, the adapter at the end of training, from which all other points are cut.

    Args:
        prepared: the trial.
        trained: what `train` returned.
        folder: the one that was given to `train`.
        control: observes the trial after every scored pattern, and may stop it after every evaluated batch.
    Raises:
        FloatingPointError: an output is not finite.
        InterruptedTrialError, OSError: as `run_trial`.
    """
    allocator, layers, how = prepared.allocator, prepared.adapted.layers, prepared.spec.training
    clock, check = prepared.lane.clock, _after_batch(control)
    began = clock()
    looks = Looks(
        prepared.adapted, prepared.data.held_out["search"], prepared.task, how.eval_batch_size, how.precision, check,
        control.observe, clock,
    )  # fmt: skip
    own, *others = allocator.finish(trained.state, layers)
    cuts = {f"mean rank {pattern.mean:.4g}": pattern for pattern in others}
    chosen = allocator.choose(trained.state, layers, looks)
    origins = {f"{source} {level:g}": {"source": source, "level": level} for source, level in chosen}
    cuts |= dict(zip(origins, chosen.values(), strict=True))
    restarted = allocator.restart(prepared.steps) is not None
    points: list[Point] = []
    scoring = _after_batch(control, _batches(prepared) * (len(cuts) + 1))
    predictions = {f"labels/{name}": _plain(split.labels) for name, split in prepared.data.held_out.items()}
    for label, pattern in [*cuts.items(), ("budget", own)]:
        if label == "budget" and restarted:  # the trial's own point is the network before the restart
            _export(prepared, own, folder / "recovered")
            before = load_network(prepared.adapted, folder / "checkpoints")
            prepared.adapted.restore_tuners(before.get("tuners", {}))
        answers = _answers(prepared, pattern, scoring)
        predictions |= {f"{key}/{label}/{split}": v for split, fields in answers.items() for key, v in fields.items()}
        adapter = "recovered" if restarted and label != "budget" else "adapter"
        point = _point(prepared, label, pattern, answers, adapter)
        points.append(point.model_copy(update=origins.get(label, {})))
        value = points[-1].search[prepared.task.metrics[0]]
        control.observe(Progress(len(points), len(cuts) + 1, "evaluate", {"score": value}))
    _export(prepared, own, folder / "adapter")
    spectra = update_spectra(layers)
    np.savez_compressed(folder / "predictions.npz", **predictions)  # type: ignore[arg-type]
    tokens, padded = prepared.order.count(prepared.steps, how.accumulation)
    evaluated = clock() - began
    timed = _speed(prepared)
    return result_of(
        prepared,
        status="complete",
        points=(points[-1], *points[:-1]),
        ranks=trained.ranks,
        losses=trained.losses,
        looks=tuple(looks.seen),
        baseline=_baseline(prepared),
        retained=_retained(prepared, check),
        spectra=spectra,
        measured=trained.state.get("measured", {}),
        notes=(*prepared.adapted.notes, *prepared.data.notes, *trained.state.get("notes", ())),
        parameters=_parameters(prepared, trained, points[-1].kept),
        cost=Cost(
            train_seconds=trained.seconds,
            evaluate_seconds=evaluated,
            steps=prepared.steps,
            tokens=tokens,
            padded_tokens=padded,
            looks=len(looks.seen),
            look_seconds=looks.seconds,
            host_memory=trained.memory.host,
            device_memory=trained.memory.device,
            adapter_bytes=stored_bytes(folder / "adapter"),
            **timed,
            **{f"prepare_{name}": value for name, value in trained.preparation.items()},
        ),
    )


def result_of(prepared: Prepared, **values: Any) -> TrialResult:
    """A prepared trial's result: its identity and environment, with what `values` adds to them."""
    hashes = {"data": prepared.data.fingerprint, "model": prepared.adapted.fingerprint}
    return TrialResult(
        key=prepared.spec.key,
        spec=prepared.spec.plain,
        metrics=prepared.task.metrics,
        minimised=prepared.task.minimised,
        layers=shapes_of(prepared.adapted.layers),
        environment=environment(prepared.adapted.device.type) | hashes | {"task_version": str(prepared.task.version)},
        **values,
    )


def _retained(prepared: Prepared, check: Callable[[], None]) -> Retained | None:
    """What became of the scores on other material; the trial's own pattern is applied."""
    spec, adapted = prepared.spec, prepared.adapted
    if spec.retain is None:
        return None
    other, rows = load_retained(spec.retain, spec.task, adapted.tokenizer)
    after = scores_on_retained(spec, adapted, check)
    return Retained(task=other.name, examples=len(rows), minimised=other.minimised, before=prepared.before, after=after)


def _baseline(prepared: Prepared) -> Baseline | None:
    """The scores of a constant prediction on every held-out split."""
    task, found = prepared.task, {}
    name = ""
    for split, data in prepared.data.held_out.items():
        fixed = task.problem.constant(data.labels)
        if fixed is None:
            return None
        name, answers = fixed
        found[split] = task.scores(answers, data.labels)
    return Baseline(name=name, search=found.pop("search"), report=found)


def _plain(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels as an array that is stored without pickling."""
    return labels.astype(str) if labels.dtype == object else labels


def _answers(prepared: Prepared, pattern: RankPattern, check: Callable[[], None]) -> dict[str, Answers]:
    """The answers for every held-out split under a pattern, which stays applied."""
    how, held_out = prepared.spec.training, prepared.data.held_out
    apply_pattern(prepared.adapted.layers, pattern)
    answers = {
        split: predict(prepared.adapted, prepared.task, split, how.eval_batch_size, how.precision, check)
        for split in dict.fromkeys(held_out.values())  # one pass where two names share a split
    }
    return {name: answers[split] for name, split in held_out.items()}


def _point(prepared: Prepared, label: str, pattern: RankPattern, answers: dict[str, Answers], adapter: str) -> Point:
    held_out = prepared.data.held_out
    scores = {name: prepared.task.scores(answers[name], split.labels) for name, split in held_out.items()}
    kept = prepared.adapted.stored(pattern)
    return Point(label=label, pattern=pattern, kept=kept, search=scores.pop("search"), report=scores, adapter=adapter)


def _export(prepared: Prepared, pattern: RankPattern, folder: Path) -> None:
    adapted = prepared.adapted
    apply_pattern(adapted.layers, pattern)
    save_all(adapted.attached, folder)
    if adapted.head:
        adapted.model.config.save_pretrained(folder)  # labels and pad token, which PEFT does not keep
    if not (folder / PEFT_CONFIG).is_file():
        adapted.tokenizer.save_pretrained(folder)  # a checkpoint of the whole model needs nothing else


def _speed(prepared: Prepared) -> dict[str, float]:
    """Seconds of forward passes; nothing in a joint training, whose passes are those of several trials."""
    if type(prepared.lane) is not Lane:
        return {}
    how, split = prepared.spec.training, prepared.data.held_out["search"]
    return speed(prepared.adapted, prepared.task.problem, split, how.eval_batch_size, how.precision)


def _parameters(prepared: Prepared, trained: Trained, kept: int) -> Parameters:
    adapted, shapes = prepared.adapted, shapes_of(prepared.adapted.layers)
    others = sum(p.numel() for one in adapted.others.values() for p in one.parameters.values())
    gated = any(layer.g.requires_grad for layer in adapted.layers.values())
    return Parameters(
        base=adapted.base_parameters,
        head=adapted.head_parameters,
        trained=trained.peak.parameters(shapes) + gated * trained.peak.total + others,
        kept=kept,
    )


def _after_batch(control: Control, batches: int = 0) -> Callable[[], None]:
    """What is called after every evaluated batch: it interrupts the trial if asked, and tells how far it is.

    Args:
        control: of the trial.
        batches: number of batches to come; 0 to tell nothing.
    """
    done = count(1)

    def check() -> None:
        if control.stop():
            raise InterruptedTrialError
        if batches:
            control.observe(Progress(min(next(done), batches), batches, "scoring"))

    return check


def _batches(prepared: Prepared) -> int:
    """Batches of one pass over all held-out examples; a generation reads and decodes each."""
    size, passes = prepared.spec.training.eval_batch_size, 1 + prepared.task.problem.generates(prepared.task.metrics)
    return passes * sum(-(-len(split) // size) for split in dict.fromkeys(prepared.data.held_out.values()))
