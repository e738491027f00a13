"""Mirror trials to W&B, one run each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rankopt.core.progress import Progress
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import WandbSpec
from rankopt.core.trial_spec import TrialSpec, method_label
from rankopt.study.rank_map import rank_map
from rankopt.study.wandb_run import WandbMode, check_wandb_mode, page, start_run, table


class Tracker(ABC):
    """Receives the progress and result of one trial at a time."""

    @abstractmethod
    def start(self, study: str, number: int, label: str, spec: TrialSpec) -> None:
        """Begin an attempt at a trial."""

    @abstractmethod
    def log(self, progress: Progress) -> None:
        """Log a training step or a scored pattern."""

    @abstractmethod
    def finish(self, result: TrialResult | None) -> None:
        """End the trial; None if it was interrupted."""


class NullTracker(Tracker):
    """Logs nothing; works without wandb."""

    def start(self, study: str, number: int, label: str, spec: TrialSpec) -> None: ...

    def log(self, progress: Progress) -> None: ...

    def finish(self, result: TrialResult | None) -> None: ...


class WandbTracker(Tracker):
    """One W&B run per trial: id = study and key, group = study, job type = allocator.

    A later attempt at the trial continues its run.

    Args:
        mode: "offline" only writes files, "online" uploads them.
        folder: W&B writes to `folder/wandb`.
        wandb: project, entity and tags.
    """

    def __init__(self, mode: WandbMode, folder: Path, wandb: WandbSpec) -> None:
        self.mode, self.folder, self.wandb = mode, folder, wandb
        self._run: Any = None

    def start(self, study: str, number: int, label: str, spec: TrialSpec) -> None:
        self._run = start_run(
            self.mode, self.folder, self.wandb, id=f"{study}-{spec.key}", group=study, job_type=spec.method.name,
            name=f"{number:04d} {label}", config=_all_fields(spec),
        )  # fmt: skip
        self._run.define_metric("*", step_metric="step")

    def log(self, progress: Progress) -> None:
        if progress.stage == "train":
            self._run.log({"step": progress.step, **progress.values})
        elif progress.stage == "score":
            self._run.log({"step": progress.step, "search_score": progress.values["score"]})

    def finish(self, result: TrialResult | None) -> None:
        if self._run is None:
            return
        if result is not None:
            # hashes of data and model, versions, device: known only once the trial has run
            self._run.config.update({"environment": result.environment}, allow_val_change=True)
            self._run.summary.update({"key": result.key, "status": result.status, "reason": result.reason})
        if result is not None and result.points:
            scores = {"score": result.score("report"), "search_score": result.score("search")}
            steps = {"step": result.cost.steps} if result.cost else {}
            ranks = {"ranks": page(rank_map(result))} if result.ranks else {}
            self._run.log({**steps, **scores, **ranks, "points": table(point_rows([result]))})
            self._run.summary.update(_summary(result))
        self._run.finish(exit_code=0 if result is not None and result.status == "complete" else 1)
        self._run = None


class SafeTracker(Tracker):
    """Forwards to another tracker until that fails; then warns once and logs nothing, so that no trial fails.

    Args:
        tracker: the tracker that may fail.
        warn: called with the reason.
    """

    def __init__(self, tracker: Tracker, warn: Callable[[str], None]) -> None:
        self._tracker, self._warn = tracker, warn

    def start(self, study: str, number: int, label: str, spec: TrialSpec) -> None:
        self._try(lambda: self._tracker.start(study, number, label, spec))

    def log(self, progress: Progress) -> None:
        self._try(lambda: self._tracker.log(progress))

    def finish(self, result: TrialResult | None) -> None:
        self._try(lambda: self._tracker.finish(result))

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self._tracker = NullTracker()
            self._warn(f"W&B failed and is turned off for this worker: {type(error).__name__}: {error}")


def make_tracker(mode: WandbMode, folder: Path, wandb: WandbSpec) -> Tracker:
    """The tracker for a mode.

    Raises:
        ValueError: as `check_wandb_mode`.
    """
    check_wandb_mode(mode)
    return NullTracker() if mode == "disabled" else WandbTracker(mode, folder, wandb)


def point_rows(results: Sequence[TrialResult]) -> list[dict[str, Any]]:
    """One flat row per point of every complete result."""
    rows = []
    for result in results:
        for point in result.points:
            row = {
                "key": result.key,
                "task": result.spec["task"]["name"],
                "allocator": method_label(result.spec),
                "seed": result.spec.get("seed", 0),
                "point": point.label,
                "mean_rank": point.pattern.mean,
                "kept_parameters": point.kept,
                "search_score": result.score("search", point),
                "score": result.score("report", point),
            }
            rows.append(row)
    return rows


def _summary(result: TrialResult) -> dict[str, Any]:
    """The numbers of a complete trial: parameters, all metrics on all splits, costs."""
    own = result.own
    named: dict[str, dict[str, Any]] = {
        "search": own.search, **own.report, "cost": result.cost.model_dump(exclude_none=True) if result.cost else {}
    }  # fmt: skip
    if kept := result.retained:
        named |= {"retain/before": kept.before, "retain/after": kept.after}
    counts = {"kept_parameters": own.kept, "mean_rank": own.pattern.mean}
    return counts | {f"{group}/{name}": value for group, values in named.items() for name, value in values.items()}


def _all_fields(spec: TrialSpec) -> dict[str, Any]:
    """A trial as plain data, with every default, those of its allocator included."""
    from rankopt.allocators.build import build_allocator

    fields = {**spec.model_dump(mode="json"), "key": spec.key}
    if spec.allocator:
        fields["allocator"] = {"name": spec.allocator.name, **build_allocator(spec).model_dump(mode="json")}
    return fields
