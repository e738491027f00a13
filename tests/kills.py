"""Kill studies with SIGKILL at random moments: once resumed to the end, are they the uninterrupted ones?

    python tests/kills.py [--kills 300] [--modes tpe,pruner] [--folder FOLDER --seconds 150]

Runs a tiny study of each mode without interruption (every allocator; two workers; joint training; one-shot, TPE,
NSGA-II, repeated and pruned searches). Then runs it again in chains: kills the whole command or one worker process at
a random moment of a training, an evaluation, an export or an upload, resumes, kills again, and at last lets it finish.
Compares results, adapters and predictions bit for bit (joint training: to 1e-6), counts every trial, and looks for
files left behind. Prints a table; exit code 0 when all agree. With a folder the proof can be made in parts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import TrialState
from trial_results import without_seconds
from warm_process import Command

from rankopt.allocators import ALLOCATORS
from rankopt.core.path import with_path
from rankopt.core.yaml import write
from rankopt.study.attempts import keys
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url

QUICKLY = ("--wandb", "disabled", "--heartbeat", "1", "--grace", "4", "--checkpoint-steps", "7")
LIMIT = 300.0
"""Seconds after which a run hangs."""
LR = {"training.lr": {"float": [1e-3, 1e-2], "log": True}}
ONE = {"score": "maximize"}
MOMENTS = {
    # what appears in the study's folder when it begins, and the longest wait, as a share of a training
    "training": ("log.txt", 1.0),
    "evaluation": ("trials/*/checkpoints/checkpoint-60/seal.json", 0.2),
    "export": ("trials/*/adapter", 0.02),
    "upload": ("artifacts/*", 0.05),
}
NESTED = {"name": "nested", "curve": [1.0], "looks": 4, "recovery": 0.5}


@dataclass
class Mode:
    """A study, and the options it is run with.

    Attributes:
        study: the study's fields beside name and base.
        words: options of `rankopt run`.
        close: compare to 1e-6 instead of bit for bit.
        base: fields of the base trial, by dotted path; None removes one.
    """

    study: dict[str, Any]
    words: tuple[str, ...] = ()
    close: bool = False
    base: dict[str, Any] = field(default_factory=dict)


def modes() -> dict[str, Mode]:
    """Every allocator, and every way to run a study."""
    found = {name: Mode({"space": {"seed": [0, 1], "allocator": [{"name": name}]}}) for name in ALLOCATORS}
    tpe = {"name": "tpe", "trials": 6, "startup": 3}
    searches = {
        "workers 2": Mode({"space": {"seed": [0, 1, 2, 3]}}, ("--workers", "2")),
        # at a low learning rate, because Adam multiplies the rounding of passes that are joined differently by it
        "together 2": Mode(
            {"space": {"seed": [0, 1, 2, 3]}}, ("--together", "2"), close=True, base={"training.lr": 1e-3}
        ),
        "tpe": Mode({"space": LR, "search": tpe}),
        "nsga2": Mode({"space": LR, "search": {"name": "nsga2", "trials": 6, "population": 3}}),
        "oneshot": Mode(
            {"search": {"name": "oneshot", "levels": [1.0]}, "space": {"seed": [0, 1]}},
            base={"allocator": NESTED, "budget": None, "model.scale": "unit"},
        ),
        "repeat": Mode({"space": LR, "search": tpe | {"trials": 3}, "repeat": {"seed": [0, 1]}, "objectives": ONE}),
        "pruner": Mode(
            {
                "space": LR, "objectives": ONE,
                "search": tpe | {"trials": 8, "pruner": {"name": "median", "startup": 2, "evaluations": 3}},
            }
        ),
    }  # fmt: skip
    return found | searches


def world(folder: Path) -> dict[str, Any]:
    """The base trial of every study: the model and the data that the tests train on."""
    import conftest

    class Folders:
        def mktemp(self, name: str) -> Path:
            (folder / name).mkdir(exist_ok=True)
            return folder / name

    model = conftest.tiny_model.__wrapped__(Folders(), conftest.tiny_tokenizer.__wrapped__())
    data = conftest.tiny_glue.__wrapped__(Folders())
    return {
        "task": {"name": "sst2", "data_dir": str(data), "search_examples": 24},
        "model": {"name": str(model), "max_rank": 4, "alpha": 4.0},
        "allocator": {"name": "uniform"},
        "budget": {"mean_rank": 2},
        "training": {"steps": 60, "batch_size": 16, "lr": 5.0e-3},
    }


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A base trial with some fields changed."""
    for path, value in changes.items():
        base = with_path(base, path, value)
    return {name: value for name, value in base.items() if value is not None}


def start(study: Path, folder: Path, words: tuple[str, ...]) -> Command:
    """`rankopt run` in a process group of its own."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return Command(("run", study, "--dir", folder, *QUICKLY, *words), folder, environment, merged=True)


def kill(process: Command, draw: random.Random) -> None:
    """Kill the whole command, or one of its worker processes."""
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    if children and draw.random() < 0.5:
        with suppress(ProcessLookupError):  # it ended by itself a moment ago
            os.kill(int(draw.choice(children)), signal.SIGKILL)
    else:
        process.kill()


def signs(here: Path, moment: str) -> set[tuple[str, int]]:
    """What shows how often a study has come to a moment: a new element is a new time."""
    if moment == "training":
        return {("started", number) for number in range(_text(here / "log.txt").count("started by worker"))}
    found = set()
    for path in here.glob(MOMENTS[moment][0]):
        with suppress(FileNotFoundError):
            found.add((str(path), path.stat().st_mtime_ns))
    return found


def chain(study: Path, folder: Path, mode: Mode, kills: int, seconds: float, draw: random.Random) -> Counter[str]:
    """Run a study to its end under at most so many kills; returns how many there were, by moment."""
    here, hits, process = folder / study.stem, Counter[str](), start(study, folder, mode.words)
    while hits.total() < kills:
        moment = draw.choice(list(MOMENTS))
        before, longest, end = signs(here, moment), MOMENTS[moment][1] * seconds, time.monotonic() + LIMIT
        while process.poll() is None and signs(here, moment) <= before and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, longest))
        if process.poll() is not None:
            break
        kill(process, draw)
        hits[moment] += 1
        if process.poll() is not None:
            process = start(study, folder, mode.words)
    if process.wait(LIMIT):  # the last kill may have met the end of the run
        process = start(study, folder, mode.words)
    if code := process.wait(LIMIT):
        raise RuntimeError(f"rankopt run ended with {code}: {process.printed[-2000:]}")
    return hits


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def outcome(folder: Path, name: str, scratch: Path) -> dict[str, Any]:
    """What a study left: the state and values of each trial, and by key its result, adapters and predictions."""
    store = StudyStore(sqlite_url(folder / name), name, folder / name)
    store.open()
    found: dict[str, Any] = {"counts": store.counts(), "proposals": store.proposals() if store.search.trials else None}
    finished = store.trials(TrialState.COMPLETE, TrialState.PRUNED)
    found["values"] = sorted((keys(t), t.state.name, t.values) for t in finished)
    for result in store.results(planned=False):
        data = without_seconds(result)
        data["environment"] = {}
        found[result.key] = data
        if result.status == "failed":
            continue
        attempts = [attempt for attempt in store.trials() if result.key in keys(attempt)]
        for adapter in sorted({point.adapter for point in result.points}):
            store.artifacts.download(attempts, f"{result.key}-{adapter}.zip", scratch / "adapter.zip")
            with zipfile.ZipFile(scratch / "adapter.zip") as archive:
                found[f"{result.key} {adapter}"] = {one: archive.read(one) for one in sorted(archive.namelist())}
        store.artifacts.download(attempts, f"{result.key}-predictions.npz", scratch / "predictions.npz")
        with np.load(scratch / "predictions.npz") as arrays:
            found[f"{result.key} predictions"] = {one: arrays[one].tolist() for one in sorted(arrays)}
    return found


def left_over(folder: Path, name: str, files: int) -> list[str]:
    """Trial folders, surplus artifacts and drafts."""
    here = folder / name
    left = [path.name for path in (here / "trials").glob("*")]
    stored = list((here / "artifacts").glob("*"))
    return left + ([f"{len(stored) - files} artifacts"] if len(stored) != files else [])


def differences(one: Any, other: Any, close: bool, path: str = "") -> Iterator[str]:
    """Where two outcomes differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys(), key=str):
            yield from differences(one.get(key), other.get(key), close, f"{path}/{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, close, f"{path}/{index}")
    elif close and isinstance(one, float) and isinstance(other, float):
        if abs(one - other) > 1e-6 * max(1.0, abs(one)):
            yield f"{path}: {one} and {other}"
    elif close and isinstance(one, bytes):
        return  # factors are compared through the predictions
    elif one != other and json.dumps(one, default=repr) != json.dumps(other, default=repr):
        yield f"{path}: {str(one)[:80]} and {str(other)[:80]}"


class Proof:
    """Chains of kills, whose rows are kept in a file, so that the proof can be made in parts.

    Args:
        folder: keeps the model, the data, the uninterrupted runs and the rows.
        seed: of the first chain.
        only: names of modes; all when empty.
    """

    def __init__(self, folder: Path, seed: int = 0, only: Sequence[str] = ()) -> None:
        self.folder, self.seed, self.base = folder.resolve(), seed, world(folder.resolve())
        (self.folder / "scratch").mkdir(exist_ok=True)
        self.modes = {name: mode for name, mode in modes().items() if not only or name in only}
        self.straight: dict[str, tuple[Any, float, int]] = {}
        self.table = self.folder / "table.jsonl"
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in _text(self.table).splitlines()]

    def kills(self) -> int:
        """Kills so far."""
        return sum(row["kills"] for row in self.rows)

    def step(self, kills: int = 3) -> None:
        """One chain of the mode with the fewest so far.

        With three kills no training crashes often enough to be recorded as a failure.
        """
        name = min(self.modes, key=[row["mode"] for row in self.rows].count)
        mode, number = self.modes[name], len(self.rows)
        study, expected, seconds, files = self._reference(name, mode)
        folder, scratch = self.folder / f"chain-{number}", self.folder / "scratch"
        hits = chain(study, folder, mode, kills, seconds, random.Random(f"{self.seed} {number}"))
        found = list(differences(expected, outcome(folder, study.stem, scratch), mode.close))
        left = left_over(folder, study.stem, files)
        row = {"mode": name, "kills": hits.total(), "hits": hits, "differences": found[:5], "left": left}
        self.rows.append(row)
        with self.table.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{self.kills():4} kills  {name}: {dict(hits)}, {found or 'identical'}, left over: {left or 'nothing'}")
        if not found and not left:
            shutil.rmtree(folder)

    def _reference(self, name: str, mode: Mode) -> tuple[Path, Any, float, int]:
        """A mode's study file; its uninterrupted outcome, seconds of a training and number of artifacts."""
        label = name.replace(" ", "-")
        study, folder = self.folder / f"{label}.yaml", self.folder / f"straight-{label}"
        if name not in self.straight:
            spent = folder / "seconds"
            if not spent.exists():
                shutil.rmtree(folder, ignore_errors=True)
                write({"name": label, "base": changed(self.base, mode.base), **mode.study}, study)
                began = time.monotonic()
                chain(study, folder, mode, 0, 0, random.Random())
                spent.write_text(str((time.monotonic() - began) / 3))
            files = len(list((folder / label / "artifacts").glob("*")))
            self.straight[name] = outcome(folder, label, self.folder / "scratch"), float(_text(spent)), files
        return study, *self.straight[name]

    def problems(self) -> list[str]:
        """What differed from the uninterrupted runs, or was left over."""
        return [
            f"{row['mode']}, chain-{number}: {line}"
            for number, row in enumerate(self.rows)
            for line in (*row["differences"], *(f"left over: {one}" for one in row["left"]))
        ]

    def __str__(self) -> str:
        heads = ["mode", "chains", "kills", *MOMENTS, "identical", "left over"]
        lines = ["  ".join(f"{head:>{max(10, len(head))}}" for head in heads)]
        for name in [*self.modes, "all"]:
            rows = [row for row in self.rows if name in ("all", row["mode"])]
            hits = [sum(row["hits"].get(moment, 0) for row in rows) for moment in MOMENTS]
            same, left = sum(not row["differences"] for row in rows), sum(bool(row["left"]) for row in rows)
            cells = [name, len(rows), sum(hits), *hits, same, left]
            lines.append("  ".join(f"{cell:>{max(10, len(head))}}" for cell, head in zip(cells, heads, strict=True)))
        return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="in all, those of earlier parts included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modes", default="", help="comma-separated; all by default")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no chain after so many seconds")
    parser.add_argument("--folder", type=Path, help="continue the proof in this folder")
    asked = parser.parse_args()
    end = time.monotonic() + asked.seconds
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        proof = Proof(folder, asked.seed, [name for name in asked.modes.split(",") if name])
        while proof.kills() < asked.kills and time.monotonic() < end:
            proof.step()
    print(proof, *proof.problems(), sep="\n")
    sys.exit(bool(proof.problems()))


if __name__ == "__main__":
    main()
