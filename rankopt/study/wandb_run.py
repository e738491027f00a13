"""W&B's runs and media. The only file that imports wandb; nothing is read back from it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rankopt.core.study_spec import WandbSpec

if TYPE_CHECKING:
    import pandas as pd

WandbMode = Literal["offline", "online", "disabled"]
OF_ONE_RUN = ("RUN_ID", "RESUME_FROM", "FORK_FROM", "SWEEP_ID", "SWEEP_PARAM_PATH", "LAUNCH")
"""W&B's variables that describe a single run; a sweep or a launch makes W&B ignore the id, project and entity given."""


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


def sync_command(mode: str, folder: Path) -> str:
    """The command that uploads the offline runs of a study's folder; "" in another mode."""
    return f"wandb sync {folder}/wandb/offline-run-*" if mode == "offline" else ""


def start_run(mode: WandbMode, folder: Path, spec: WandbSpec, **run: Any) -> Any:
    """Start a W&B run.

    Project, entity and tags that the study leaves out come from W&B's own variables.

    Args:
        mode: "offline" only writes files, "online" uploads them.
        folder: W&B writes to `folder/wandb`.
        spec: project, entity and tags.
        run: further arguments of `wandb.init`: id, name, group, ...
    """
    wandb = _wandb()
    settings = wandb.Settings(
        console="off", silent=True, x_disable_stats=True,
        x_disable_meta=True,  # the metadata contains the command line, and with it perhaps the storage's password
        x_save_requirements=False, disable_git=True, save_code=False,
    )  # fmt: skip
    return wandb.init(
        project=spec.project or os.environ.get("WANDB_PROJECT") or "rankopt",
        entity=spec.entity,
        tags=spec.tags or None,
        mode=mode,
        dir=str(folder),
        settings=settings,
        resume="allow",
        reinit="create_new",  # other trials of this process may have a run
        **run,
    )


def table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A table of W&B with a row per mapping; all have the keys of the first."""
    columns: list[str | int] = list(rows[0]) if rows else ["key"]
    return _wandb().Table(columns=columns, data=[list(row.values()) for row in rows])


def frame_table(frame: pd.DataFrame) -> Any:
    """A table of W&B, in which a missing number is null."""
    rows = [[None if value != value else value for value in row] for row in frame.to_numpy(dtype=object).tolist()]
    return _wandb().Table(columns=list(frame.columns), data=rows, allow_mixed_types=True)


def lines(curves: Mapping[str, tuple[list[float], list[float]]], title: str, x: str) -> Any:
    """A chart with a line per name, of x and y values."""
    xs, ys = [x for x, _ in curves.values()], [y for _, y in curves.values()]
    return _wandb().plot.line_series(xs=xs, ys=ys, keys=list(curves), title=title, xname=x)


def page(html: str) -> Any:
    """A piece of HTML as a panel."""
    return _wandb().Html(html, inject=False)


def _wandb() -> Any:
    """The wandb module, which reads its variables at first use: without those that all runs of a study would share."""
    for name in OF_ONE_RUN:
        os.environ.pop(f"WANDB_{name}", None)
    os.environ.setdefault("WANDB_SILENT", "true")  # the study has its own progress display
    import wandb

    return wandb
