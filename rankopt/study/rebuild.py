"""Write the W&B runs of a study again, from what its storage holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from pydantic import ValidationError

from rankopt.core.progress import Progress
from rankopt.core.result import TrialResult
from rankopt.core.spec import decode
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.study.attempts import keys
from rankopt.study.objective import trial_label
from rankopt.study.storage import StudyStore
from rankopt.study.study_mirror import StudyMirror
from rankopt.study.tracking import make_tracker
from rankopt.study.wandb_run import WandbMode


def rebuild(mode: WandbMode, store: StudyStore, study: StudySpec, say: Callable[[str], None]) -> int:
    """One run per result and one for the study, under the same ids as while the study ran.

    Args:
        mode: "offline" or "online".
        store: of the study, open.
        study: its spec.
        say: called with one line about a failure.
    Returns:
        The number of trials that have a run; invalid proposals of a search have none.
    Raises:
        ValueError: as `wandb_run.check_wandb_mode`, or the study has no results.
    """
    tracker = make_tracker(mode, store.folder, study.wandb)
    results = store.results(planned=False)
    if not results:
        raise ValueError(f"study {study.name!r} has no results yet: run rankopt run {study.name} first")
    numbers = {key: attempt.number for attempt in store.trials() for key in keys(attempt)}
    done = 0
    for result in results:
        with suppress(ValidationError):
            spec = decode(TrialSpec, result.spec)
            tracker.start(study.name, numbers[result.key], trial_label(study, spec), spec)
            for progress in _replayed(result):
                tracker.log(progress)
            tracker.finish(result)
            done += 1
    StudyMirror(mode, store, study, say).finish()
    return done


def _replayed(result: TrialResult) -> Iterator[Progress]:
    """The progress of a training as its result records it: about a hundred steps, with mean losses between them."""
    steps = result.cost.steps if result.cost else 0
    for event in result.losses:
        values = {"loss": event.loss, "penalty": event.penalty, "lr": event.lr}
        if event.gradient_norm is not None:
            values["gradient_norm"] = event.gradient_norm
        amounts = [trace.amount for trace in result.ranks if trace.step <= event.step]
        yield Progress(event.step, steps, "train", values | ({"budget": float(amounts[-1])} if amounts else {}))
