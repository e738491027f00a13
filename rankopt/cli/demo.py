"""The command that runs the first study: `rankopt demo`."""

from __future__ import annotations

from pathlib import Path

import typer

from rankopt.cli import results, running
from rankopt.cli.options import RUNS, Runs, Sets, Workers

QUICKSTART = Path(__file__).with_name("quickstart.yaml")  # a link to studies/quickstart.yaml; a copy in the wheel


def demo(sets: Sets = None, workers: Workers = 2, directory: Runs = RUNS) -> None:
    """Run a small study and write its report; needs no data, no network and no account.

    It takes about two minutes on two cores. To resume it, run it again.
    """
    try:
        running.run(str(QUICKSTART), sets, workers=workers, directory=directory, wandb="disabled")
    except typer.Exit as end:
        if end.exit_code:
            raise
    results.report("quickstart", directory=directory, out=directory / "quickstart" / "report")
    print("Next: rankopt init my-study (write a study), rankopt list allocators, rankopt --help")
