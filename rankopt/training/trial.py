"""One trial in three steps: prepare, train, score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rankopt.core.progress import Observer
from rankopt.core.result import TrialResult
from rankopt.core.trial_spec import TrialSpec
from rankopt.training.lane import Lane
from rankopt.training.prepare import prepare
from rankopt.training.score import result_of, score
from rankopt.training.train import train
from rankopt.training.trainer import NonFiniteLossError


def run_trial(
    spec: TrialSpec,
    folder: Path,
    *,
    observe: Observer = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
    checkpoint_steps: int | None = None,
    evaluations: int = 0,
    lane: Lane | None = None,
    device: str = "auto",
) -> TrialResult:
    """Train one model under one allocator, and score it at every final pattern.

    Args:
        spec: what to do.
        folder: the trial's own folder. Checkpoints are read from and written to `folder/checkpoints`; `score` says
            what else is written.
        observe: called after every step and every scored pattern.
        stop: asked after every step and every evaluated batch.
        checkpoint_steps: steps between checkpoints (default: every 30 s).
        evaluations: number of evaluations on the search split during training, evenly spaced, the end excluded. They
            are reported to `observe` and change nothing else.
        lane: how the trial runs its passes (default: alone).
        device: "cuda", "mps", "cpu", or "auto" for the first of these that torch can use.
    Returns:
        A complete result, or a failed one when the loss, the weights or the outputs are no longer finite.
    Raises:
        ValueError: a wrong spec, data or model; one line that says what to do.
        InterruptedTrialError: `stop` returned True.
        OSError: nothing can be written, or the checkpoint to continue from is corrupt.
    """
    prepared = prepare(spec, lane, device)
    try:
        trained = train(
            prepared, folder, observe=observe, stop=stop, checkpoint_steps=checkpoint_steps, evaluations=evaluations
        )
        return score(prepared, trained, folder, observe=observe, stop=stop)
    except (NonFiniteLossError, FloatingPointError) as error:
        return result_of(prepared, status="failed", reason=str(error))
