"""Kill studies with SIGKILL at random moments: once resumed to the end, are they the uninterrupted ones?

    python tests/kills.py [--kills 300] [--seed 0] [--modes tpe,pruner]

Runs a tiny study of each mode without interruption (every allocator; two workers; joint training; one-shot, TPE,
repeated and pruned searches). Then runs it again in chains: kills the whole command or one worker process at a random
moment, resumes, kills again, and at last lets it finish. Compares results, adapters and predictions bit for bit (joint
training: to 1e-6), counts every trial, and looks for files left behind. Prints a table; exit code 0 when all agree.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import TrialState

from rankopt.allocators import ALLOCATORS
from rankopt.core.path import with_path
from rankopt.core.yaml import write
from rankopt.study.attempts import keys
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url

QUICKLY = ("--wandb", "disabled", "--heartbeat", "1", "--grace", "4", "--checkpoint-steps", "7")
LR = {"training.lr": {"float": [1e-3, 1e-2], "log": True}}
ONE = {"score": "maximize"}
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
    tally: Counter[str] = field(default_factory=Counter)


def modes() -> dict[str, Mode]:
    """Every allocator, and every way to run a study."""
    found = {name: Mode({"space": {"seed": [0, 1], "allocator": [{"name": name}]}}) for name in ALLOCATORS}
    tpe = {"name": "tpe", "trials": 6, "startup": 3}
    searches = {
        "workers 2": Mode({"space": {"seed": [0, 1, 2, 3]}}, ("--workers", "2")),
        "together 2": Mode({"space": {"seed": [0, 1, 2, 3]}}, ("--together", "2"), close=True),
        "tpe": Mode({"space": LR, "search": tpe}),
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


def start(study: Path, folder: Path, words: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """`rankopt run` in a process group of its own."""
    command = [sys.executable, "-m", "rankopt", "run", str(study), "--dir", str(folder), *QUICKLY, *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    folder.mkdir(exist_ok=True)
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            command, cwd=folder, env=environment, start_new_session=True, stdout=output, stderr=subprocess.STDOUT
        )


def kill(process: subprocess.Popen[bytes], draw: random.Random) -> None:
    """Kill the whole command, or one of its worker processes."""
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    if children and draw.random() < 0.5:
        os.kill(int(draw.choice(children)), signal.SIGKILL)
    else:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def chain(study: Path, folder: Path, mode: Mode, kills: int, seconds: float, draw: random.Random) -> int:
    """Run a study to its end under at most so many kills; returns how many there were."""
    log, done, process = folder / study.stem / "log.txt", 0, start(study, folder, mode.words)
    while done < kills:
        lines = _text(log).count("started by worker")
        while process.poll() is None and _text(log).count("started by worker") <= lines:
            time.sleep(0.02)
        end = time.monotonic() + draw.uniform(0, seconds)
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        if process.poll() is not None:
            break
        kill(process, draw)
        done += 1
        if process.poll() is not None:
            process = start(study, folder, mode.words)
    process.wait()
    if process.returncode:  # the last kill may have met the end of the run
        process = start(study, folder, mode.words)
        process.wait()
    if process.returncode:
        raise RuntimeError(f"rankopt run ended with {process.returncode}: {_text(folder / 'output.txt')[-2000:]}")
    return done


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
        data = result.model_dump(mode="json")
        data["cost"] = {key: value for key, value in (data["cost"] or {}).items() if "seconds" not in key}
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


def prove(kills: int, seed: int, only: list[str], scratch: Path) -> list[str]:
    """Chains of every mode until there were enough kills. Returns what differs; prints the table."""
    draw, base, chosen = random.Random(seed), world(scratch), modes()
    chosen = {name: mode for name, mode in chosen.items() if not only or name in only}
    wrong, total, straight, number = [], 0, {}, itertools.count()
    for name, mode in itertools.cycle(chosen.items()):
        if total >= kills:
            break
        label = name.replace(" ", "-")
        study = scratch / f"{label}.yaml"
        if name not in straight:
            write({"name": label, "base": changed(base, mode.base), **mode.study}, study)
            began = time.monotonic()
            chain(study, scratch / f"straight-{label}", mode, 0, 0, draw)
            seconds = max(1.0, (time.monotonic() - began) / 2)
            files = len(list((scratch / f"straight-{label}" / label / "artifacts").glob("*")))
            straight[name] = (outcome(scratch / f"straight-{label}", label, scratch), seconds, files)
        expected, seconds, files = straight[name]
        folder = scratch / f"chain-{next(number)}"
        done = chain(study, folder, mode, min(4, kills - total), seconds, draw)
        found = list(differences(expected, outcome(folder, label, scratch), mode.close))
        left = left_over(folder, label, files)
        total += done
        mode.tally.update(chains=1, kills=done, identical=not found, left=bool(left))
        wrong += [f"{name}, {folder.name}: {line}" for line in (*found[:5], *(f"left over: {one}" for one in left))]
        print(
            f"{total:4} kills  {name}: {done} kills, {len(found)} differences, left over: {left or 'nothing'}",
            flush=True,
        )
    print(f"\n{'mode':14} {'chains':>7} {'kills':>6} {'identical':>10} {'left over':>10}")
    for name, mode in chosen.items():
        row = mode.tally
        print(f"{name:14} {row['chains']:7} {row['kills']:6} {row['identical']:10} {row['left']:10}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modes", default="", help="comma-separated; all by default")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        wrong = prove(asked.kills, asked.seed, [name for name in asked.modes.split(",") if name], Path(scratch))
    for line in wrong:
        print(line)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
