"""The W&B run of a whole study: the report's points, means, verdicts and curves, also while the study runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rankopt.analysis.frame import tidy
from rankopt.core.study_spec import StudySpec
from rankopt.study.predictions import stored_predictions
from rankopt.study.storage import StudyStore
from rankopt.study.tracking import point_rows
from rankopt.study.wandb_run import WandbMode, frame_table, lines, start_run, table

if TYPE_CHECKING:
    import pandas as pd

PAUSE = 60.0
"""Least seconds between two updates while the study runs."""
SHARE = 20
"""The least pause after an update, as a multiple of the time that the update took."""


class StudyMirror:
    """Mirrors a study's results to one W&B run, which starts with the first update.

    The first failure is reported and turns the mirror off, because W&B must not break a study.

    Args:
        mode: see `wandb_run.start_run`; "disabled" does nothing.
        store: of the study.
        study: its spec.
        say: called with one line about a failure.
        clock: seconds.
    """

    def __init__(
        self, mode: WandbMode, store: StudyStore, study: StudySpec, say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.mode, self.store, self.study, self.say, self.clock = mode, store, study, say, clock
        self._run: Any = None
        self._next = clock() + PAUSE

    def trial_ended(self) -> None:
        """Log the results so far, unless an update was made shortly before."""
        if self.mode != "disabled" and self.clock() >= self._next:
            self._try(self._log)

    def finish(self) -> None:
        """Log the final results, and end the run."""
        if self.mode != "disabled":
            self._try(self._log)
        if self._run is not None:
            self._try(self._run.finish)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:
            self.mode = "disabled"
            self.say(f"the study could not be published to W&B: {type(error).__name__}: {error}")

    def _log(self) -> None:
        # these import scipy, which is slow
        from rankopt.analysis.averages import average
        from rankopt.analysis.comparison import compare

        began, study = self.clock(), self.study
        if self._run is None:
            self._run = start_run(
                self.mode, self.store.folder, study.wandb, id=f"{study.name}-study", group=study.name, job_type="study",
                name=study.name, config=study.model_dump(mode="json", by_alias=True),
            )  # fmt: skip
        results = [result for result in self.store.results() if not study.is_tuning(result.spec)]
        points = tidy(results, pooled=not study.listed)
        averages = average(points)
        values = {"tradeoff_points": table(point_rows(results)), "averages": frame_table(averages)}
        if study.listed:
            arms, cells = compare(points, averages, predictions=stored_predictions(self.store))
            values |= {"verdicts": frame_table(arms), "differences": frame_table(cells)}
        for setting, chosen in averages[averages["chosen"].astype(bool)].groupby("setting", sort=True):
            title = f"{setting}: mean score over seeds against adapter parameters kept"
            values[f"tradeoff/{setting}"] = lines(_curves(chosen), title, "adapter parameters kept")
        self._run.log(values)
        complete = sum(result.status == "complete" for result in results)
        self._run.summary.update({"trials": len(results), "complete": complete, "failed": len(results) - complete})
        self._next = self.clock() + max(PAUSE, SHARE * (self.clock() - began))


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
