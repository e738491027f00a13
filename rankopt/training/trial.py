"""One trial in three steps: prepare, train, score."""

from __future__ import annotations

from pathlib import Path

from rankopt.core.progress import Control
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
    control: Control = Control(),
    lane: Lane | None = None,
    device: str = "auto",
) -> TrialResult:
    """Train one model under one allocator, and score it at every final pattern.

    Args:
        spec: what to do.
        folder: the trial's own folder. Checkpoints are read from and written to `folder/checkpoints`; `score` says
            what else is written.
        control: observes, saves and interrupts the trial.
        lane: how the trial runs its passes (default: alone).
        device: "cuda", "mps", "cpu", or "auto" for the first of these that torch can use.
    Returns:
        A complete result, or a failed one when the loss, the weights or the outputs are no longer finite.
    Raises:
        ValueError: a wrong spec, data or model; one line that says what to do.
        InterruptedTrialError: `control.stop` returned True.
        OSError: nothing can be written, or the checkpoint to continue from is corrupt.
    """
    prepared = prepare(spec, lane, device)
    try:
        return score(prepared, train(prepared, folder, control), folder, control)
    except (NonFiniteLossError, FloatingPointError) as error:
        return result_of(prepared, status="failed", reason=str(error))
