"""W&B's offline files, read back with wandb's own reader."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple


class Mirror(NamedTuple):
    """An offline run as read back."""

    header: dict[str, Any]  # group, job type, name, configuration
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    state: str
    exit_code: int
    folder: Path

    def table(self, name: str) -> list[dict[str, Any]]:
        """The rows of a logged table."""
        data = json.loads((self.folder / "files" / name).read_text())
        return [dict(zip(data["columns"], row, strict=True)) for row in data["data"]]


def read_back(folder: Path) -> list[Mirror]:
    """Read all offline runs under a folder with `wandb leet inspect`."""
    tool = Path(sys.executable).with_name("wandb")
    runs = []
    for run in sorted(folder.glob("offline-run-*"), key=lambda run: next(run.glob("*.wandb")).stat().st_mtime_ns):
        command = [str(tool) if tool.exists() else shutil.which("wandb") or "wandb", "leet", "inspect", "--json"]
        text = subprocess.run([*command, str(run)], capture_output=True, text=True, timeout=60, check=True).stdout
        records = [json.loads(line) for line in text.splitlines()]
        text = subprocess.run([*command, "--summary", str(run)], capture_output=True, text=True, check=True).stdout
        last = json.loads(text)
        runs.append(
            Mirror(
                header=next(record["run"] for record in records if record["type"] == "run"),
                history=[record["history"]["item"] for record in records if record["type"] == "history"],
                summary=last["summary"],
                state=last["state"],
                exit_code=last["exit_code"],
                folder=run,
            )
        )
    return runs
