"""`rankopt suggest` against the full grid: is its rank good enough, and what does it cost?

    OMP_NUM_THREADS=1 taskset -c 1 python tests/bench/suggest.py --task sst2 --rows 8000 --epochs 1 \
        --data GLUE_FOLDER --model MODEL_FOLDER --out sst2.json

For your own data, write the task as in a study file: --task '{name: e2e, problem: generation, data: {...}, ...}'.

The grid trains uniform LoRA at ranks 1, 2, 4, 8 and 16 with every seed, at the suggested learning rate, and scores the
report split; scores that are better when lower are negated. The suggested rank passes if the mean score of the best
rank exceeds its own by at most one standard error of that difference over examples and seeds. Time is a ratio to the
mean time of one of these trials (loading, training, scoring), on the same core in the same run; it is CPU time, because
other work may share the core. Finished parts are kept in the output file; the same command continues.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import rankopt
from rankopt.api.material import resampled
from rankopt.api.short_trainings import SCALE
from rankopt.core.spec import decode
from rankopt.core.task_spec import TaskSpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.core.yaml import parse_value
from rankopt.tasks import task_of
from rankopt.tasks.problems import LanguageModelling
from rankopt.tasks.problems.language_modelling import BATCH
from rankopt.training.trial import run_trial

RANKS = (1, 2, 4, 8, 16)
RESAMPLES = 1000


def main() -> None:
    """Measure one task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True, help="a registered task, or the fields of one")
    parser.add_argument("--data", help="folder with <task>/<split>.parquet")
    parser.add_argument("--model", required=True, help="a folder or a hub name")
    parser.add_argument("--rows", type=int, help="training rows (default: all)")
    parser.add_argument("--epochs", type=float, default=3.0, help="of a full training (default: 3)")
    parser.add_argument("--bf16", action="store_true", help="load and train the model in bfloat16")
    parser.add_argument("--seeds", type=int, default=2, help="of the grid (default: 2)")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of this measurement")
    given = parser.parse_args()
    fields = parse_value(given.task)
    fields = fields if isinstance(fields, dict) else {"name": given.task, "data_dir": given.data}
    task = decode(TaskSpec, fields | ({"train_examples": given.rows} if given.rows else {}))
    known: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    known |= {"task": task.name, "rows": given.rows, "epochs": given.epochs, "bf16": given.bf16}
    if "suggestion" not in known:
        began = time.process_time()
        found = rankopt.suggest(given.model, task, epochs=given.epochs, minutes=10_000, bf16=given.bf16, say=print)
        known["suggestion"] = found.to_json() | {"cpu_seconds": time.process_time() - began}
        known |= {"day": str(date.today()), "machine": machine()}
        given.out.write_text(json.dumps(known))
        print(found.sentence, flush=True)
    trials: dict[str, Any] = known.setdefault("trials", {})
    for seed in range(1, given.seeds + 1):
        for rank in RANKS:
            if f"{rank}/{seed}" not in trials:
                trials[f"{rank}/{seed}"] = trial(given.model, task, rank, seed, known)
                given.out.write_text(json.dumps(known))
                print(rank, seed, {k: v for k, v in trials[f"{rank}/{seed}"].items() if k != "drawn"}, flush=True)
    if trials:
        print(json.dumps(verdict(known), indent=2))


def trial(model: str, task: TaskSpec, rank: int, seed: int, known: dict[str, Any]) -> dict[str, Any]:
    """One full training of a uniform rank: its score on the report split, its resamples', and its CPU seconds."""
    spec = {
        "task": task.model_dump(mode="json", exclude_defaults=True),
        "model": {"name": model, "max_rank": rank, "alpha": SCALE, "scale": "unit"},
        "allocator": {"name": "uniform"},
        "budget": {"mean_rank": rank},
        "training": {"steps": known["suggestion"]["full_steps"], "lr": known["suggestion"]["lr"]},
        "seed": seed,
    }
    if known["bf16"]:
        spec["model"] |= {"dtype": "bfloat16"}
        spec["training"] |= {"precision": "bf16"}
    if isinstance(task_of(task).problem, LanguageModelling):
        spec["training"] |= {"batch_size": BATCH}
    with tempfile.TemporaryDirectory() as folder:
        began, wall = time.process_time(), time.monotonic()
        result = run_trial(decode(TrialSpec, spec), Path(folder))
        seconds, wall = time.process_time() - began, time.monotonic() - wall
        saved = np.load(Path(folder, "predictions.npz"), allow_pickle=False)
        end = f"/budget/{next(iter(result.own.report))}"
        answers = {name.removesuffix(end): saved[name] for name in saved.files if name.endswith(end)}
        labels = saved[end.replace("/budget", "labels")]
    drawn = result.sign * resampled(task_of(task), answers, labels, RESAMPLES, 0)
    score = result.sign * result.score()
    return {"score": score, "cpu_seconds": seconds, "seconds": wall, "drawn": drawn.round(6).tolist()}


def verdict(known: dict[str, Any]) -> dict[str, Any]:
    """Means of the grid, the suggested rank's distance from the best, and the time in trainings."""
    by_rank = {
        rank: [one for name, one in known["trials"].items() if name.partition("/")[0] == str(rank)] for rank in RANKS
    }
    means = {rank: statistics.mean(one["score"] for one in ones) for rank, ones in by_rank.items()}
    seconds = statistics.mean(one["cpu_seconds"] for one in known["trials"].values())
    best, rank = max(means, key=lambda rank: means[rank]), known["suggestion"]["rank"]
    found = {"means": means, "best": best, "suggested": rank, "lr": known["suggestion"]["lr"]}
    found |= {"trainings": known["suggestion"]["cpu_seconds"] / seconds, "training_seconds": seconds}
    if rank is not None:
        differences = [a["score"] - b["score"] for a, b in zip(by_rank[best], by_rank[rank], strict=True)]
        drawn = np.mean([a["drawn"] for a in by_rank[best]], 0) - np.mean([b["drawn"] for b in by_rank[rank]], 0)
        over_seeds = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
        error = float(np.hypot(np.std(drawn), over_seeds))
        found |= {"gap": means[best] - means[rank], "error": error, "within": means[best] - means[rank] <= error}
    return found


def machine() -> str:
    """Processor and package versions."""
    import torch

    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{names[0].partition(':')[2].strip() if names else platform.processor()}, torch {torch.__version__}"


if __name__ == "__main__":
    main()
