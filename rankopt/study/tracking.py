"""Mirror trials to W&B. Nothing is read back from it. The only file that imports wandb."""

from __future__ import annotations

import importlib.util
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rankopt.analysis.frame import VARIANTS, tidy
from rankopt.core.progress import Progress
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec, WandbSpec
from rankopt.core.trial_spec import TrialSpec, method_name

if TYPE_CHECKING:
    import pandas as pd

WandbMode = Literal["offline", "online", "disabled"]
OF_ONE_RUN = ("RUN_ID", "RESUME_FROM", "FORK_FROM", "SWEEP_ID", "SWEEP_PARAM_PATH", "LAUNCH")
"""W&B's variables that describe a single run; a sweep or a launch makes W&B ignore the id, project and entity given."""


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
        self._ranks: dict[str, int] = {}

    def start(self, study: str, number: int, label: str, spec: TrialSpec) -> None:
        self._ranks = {}
        self._run = _init(
            self, id=f"{study}-{spec.key}", group=study, job_type=spec.method.name, name=f"{number:04d} {label}",
            config=_all_fields(spec),
        )  # fmt: skip
        self._run.define_metric("*", step_metric="step")

    def log(self, progress: Progress) -> None:
        if progress.stage != "train":
            return
        values: dict[str, float] = {"step": progress.step, **progress.values}
        if progress.ranks != self._ranks:  # per-layer ranks rarely change: log them only then
            self._ranks = progress.ranks
            values |= {f"ranks/{name}": rank for name, rank in progress.ranks.items()}
        self._run.log(values)

    def finish(self, result: TrialResult | None) -> None:
        if self._run is None:
            return
        if result is not None:
            # hashes of data and model, versions, device: known only once the trial has run
            self._run.config.update({"environment": result.environment}, allow_val_change=True)
            self._run.summary.update({"key": result.key, "status": result.status, "reason": result.reason})
        if result is not None and result.points:
            self._run.log({"points": _table(point_rows([result]))})
            own = result.own
            self._run.summary.update({"kept_parameters": own.kept, "mean_rank": own.pattern.mean})
            self._run.summary.update({"score": result.score("report"), "search_score": result.score("search")})
            self._run.summary.update({f"search/{k}": v for k, v in own.search.items()})
            if result.cost:
                known = result.cost.model_dump(exclude_none=True)
                self._run.summary.update({f"cost/{name}": value for name, value in known.items()})
            if kept := result.retained:
                self._run.summary.update({f"retain/before/{k}": v for k, v in kept.before.items()})
                self._run.summary.update({f"retain/after/{k}": v for k, v in kept.after.items()})
            for split, scores in own.report.items():
                self._run.summary.update({f"{split}/{k}": v for k, v in scores.items()})
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


def check_wandb_mode(mode: WandbMode) -> None:
    """Raise a ValueError if wandb is not installed, or if an online mode has no login."""
    if mode != "disabled" and importlib.util.find_spec("wandb") is None:
        raise ValueError(f"--wandb {mode} needs the wandb package: pip install 'rankopt[wandb]'")
    if mode == "online":
        wandb = _wandb()
        if not (os.environ.get("WANDB_API_KEY") or wandb.api.api_key):
            raise ValueError(
                "--wandb online needs a login: run `wandb login`, set WANDB_API_KEY, or use --wandb offline"
            )


def default_wandb_mode() -> WandbMode:
    """Offline if wandb is installed, else disabled."""
    return "offline" if importlib.util.find_spec("wandb") else "disabled"


def publish_study(mode: WandbMode, folder: Path, study: StudySpec, results: Sequence[TrialResult]) -> None:
    """Write one W&B run for the whole study: the report's points, means and verdicts, and a curve per task."""
    if mode == "disabled":
        return
    # these import scipy, which is slow
    from rankopt.analysis.averages import average
    from rankopt.analysis.comparison import compare

    wandb = _wandb()
    run = _init(
        WandbTracker(mode, folder, study.wandb), id=f"{study.name}-study", group=study.name, job_type="study",
        name=study.name, config=study.model_dump(mode="json", by_alias=True),
    )  # fmt: skip
    points = tidy(results, VARIANTS if study.listed else 1)
    averages = average(points)
    run.log({"tradeoff_points": _table(point_rows(results)), "averages": _frame(averages)})
    if study.listed:
        arms, cells = compare(points, averages)
        run.log({"verdicts": _frame(arms), "differences": _frame(cells)})
    for setting, chosen in averages[averages["chosen"].astype(bool)].groupby("setting", sort=True):
        curves = _curves(chosen)
        run.log(
            {
                f"tradeoff/{setting}": wandb.plot.line_series(
                    xs=[x for x, _ in curves.values()],
                    ys=[y for _, y in curves.values()],
                    keys=list(curves),
                    title=f"{setting}: mean score over seeds against adapter parameters kept",
                    xname="adapter parameters kept",
                )
            }
        )
    complete = sum(result.status == "complete" for result in results)
    run.summary.update({"trials": len(results), "complete": complete, "failed": len(results) - complete})
    run.finish()


def point_rows(results: Sequence[TrialResult]) -> list[dict[str, Any]]:
    """One flat row per point of every complete result."""
    rows = []
    for result in results:
        for point in result.points:
            row = {
                "key": result.key,
                "task": result.spec["task"]["name"],
                "allocator": method_name(result.spec),
                "seed": result.spec.get("seed", 0),
                "point": point.label,
                "mean_rank": point.pattern.mean,
                "kept_parameters": point.kept,
                "search_score": result.score("search", point),
                "score": result.score("report", point),
            }
            rows.append(row)
    return rows


def _curves(chosen: pd.DataFrame) -> dict[str, tuple[list[float], list[float]]]:
    """Line -> parameters and scores: the mean of every allocator, and one standard error above and below it.

    W&B's line chart has no error bars.
    """
    curves = {}
    for allocator, rows in chosen.groupby("allocator", sort=True):
        rows = rows.sort_values("kept")
        curves[str(allocator)] = rows["kept"].tolist(), rows["score"].tolist()
        known = rows[rows["error"].notna()]
        for words, sign in (("+ 1 standard error", 1), ("- 1 standard error", -1)) if len(known) else ():
            ends = known["score"] + sign * known["error"]
            curves[f"{allocator} {words}"] = known["kept"].tolist(), ends.tolist()
    return curves


def _wandb() -> Any:
    """The wandb module, which reads its variables at first use: without those that all runs of a study would share."""
    for name in OF_ONE_RUN:
        os.environ.pop(f"WANDB_{name}", None)
    os.environ.setdefault("WANDB_SILENT", "true")  # the study has its own progress display
    import wandb

    return wandb


def _frame(frame: pd.DataFrame) -> Any:
    """A table of W&B, in which a missing number is null."""
    rows = [[None if value != value else value for value in row] for row in frame.to_numpy(dtype=object).tolist()]
    return _wandb().Table(columns=list(frame.columns), data=rows, allow_mixed_types=True)


def _table(rows: list[dict[str, Any]]) -> Any:
    columns: list[str | int] = list(rows[0]) if rows else ["key"]
    return _wandb().Table(columns=columns, data=[list(row.values()) for row in rows])


def _all_fields(spec: TrialSpec) -> dict[str, Any]:
    """A trial as plain data, with every default, those of its allocator included."""
    from rankopt.allocators.build import build_allocator

    fields = {**spec.model_dump(mode="json"), "key": spec.key}
    if spec.allocator:
        fields["allocator"] = {"name": spec.allocator.name, **build_allocator(spec).model_dump(mode="json")}
    return fields


def _init(tracker: WandbTracker, **run: Any) -> Any:
    """Start a W&B run.

    Project, entity and tags that the study leaves out come from W&B's own variables.
    """
    wandb = _wandb()
    settings = wandb.Settings(
        console="off", silent=True, x_disable_stats=True,
        x_disable_meta=True,  # the metadata contains the command line, and with it perhaps the storage's password
        x_save_requirements=False, disable_git=True, save_code=False,
    )  # fmt: skip
    return wandb.init(
        project=tracker.wandb.project or os.environ.get("WANDB_PROJECT") or "rankopt",
        entity=tracker.wandb.entity,
        tags=tracker.wandb.tags or None,
        mode=tracker.mode,
        dir=str(tracker.folder),
        settings=settings,
        resume="allow",
        reinit="create_new",  # other trials of this process may have a run
        **run,
    )
