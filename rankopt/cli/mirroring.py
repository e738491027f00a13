"""The command that writes a study's W&B runs again: `rankopt wandb`."""

from __future__ import annotations

from typing import Annotated

import typer

from rankopt.cli import printing
from rankopt.cli.options import RUNS, Artifacts, Runs, Storage, Study, open_store, wandb_mode
from rankopt.core.text import plural


def wandb(
    study: Study,
    mode: Annotated[
        str, typer.Option("--mode", metavar="MODE", help="offline writes files, online uploads (default: offline).")
    ] = "offline",
    storage: Storage = None,
    directory: Runs = RUNS,
    artifacts: Artifacts = None,
) -> None:
    """Write the W&B runs of a study again, from its stored results.

    One run per trial and one for the study, with the ids that they had while the study ran; W&B continues runs that it
    has already.
    """
    known = wandb_mode("--mode", mode, "offline", "online")
    store, spec = open_store(study, storage, directory, artifacts)
    from rankopt.study.rebuild import rebuild
    from rankopt.study.wandb_run import sync_command

    done = rebuild(known, store, spec, printing.warn)
    print(f"{spec.name}: W&B runs of {plural(done, 'trial')} and of the study")
    if command := sync_command(known, store.folder):
        print(f"W&B: {command}")
