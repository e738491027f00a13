"""The command that runs the first study: `rankopt demo`."""

from __future__ import annotations

from pathlib import Path

import typer

from rankopt.cli import running
from rankopt.cli.options import RUNS, Runs, Sets, Workers, open_store

QUICKSTART = Path(__file__).with_name("quickstart.yaml")  # a link to studies/quickstart.yaml; a copy in the wheel


def demo(sets: Sets = None, workers: Workers = 2, directory: Runs = RUNS) -> None:
    """Run a small study and write its report; needs no data, no network and no account.

    It takes about three minutes on two cores. To resume it, run it again.
    """
    outcome, study, console = running.execute(str(QUICKSTART), sets, workers, directory, "disabled", "auto")
    page = None
    if outcome.counts["complete"] and not (outcome.refusal or outcome.interrupted):
        from rankopt.api.study import report_of

        store, _ = open_store(study.name, None, directory)
        page = report_of(store, study, directory / study.name / "report")
    try:
        running.finish(outcome, study, console, page=page)
    except typer.Exit as end:
        if end.exit_code:
            raise
    print("Next: rankopt init my-study (write a study), rankopt list allocators, rankopt --help")
