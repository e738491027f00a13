"""Trials per hour, several at once against one by one, on one device: the same trials, in turns, in one process.

    python tests/bench/together.py --data GLUE_FOLDER --model MODEL_FOLDER [--at-once 1,2,4,8,16] [--repeats 3]

On an accelerator it writes `reports/performance/together.{json,md}`; on a CPU, where the dense products leave nothing
to gain, it only prints. A trial is LoRA, r = 8, on RTE, with its evaluation; seeds and so the orders of data differ.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from table import OUT, machine

from rankopt.core.spec import decode
from rankopt.core.trial_spec import TrialSpec
from rankopt.training.joint.joint_training import run_trials
from rankopt.training.trial import run_trial


def specs(args: argparse.Namespace, count: int) -> list[TrialSpec]:
    """So many trials of one study."""
    task = {"name": "rte", "data_dir": args.data, "train_examples": args.examples, "search_examples": args.scored}
    data: dict[str, Any] = {
        "task": {key: value for key, value in task.items() if value},
        "model": {"name": args.model, "max_rank": 8, "alpha": 2.0, "scale": "unit"},
        "training": {"steps": args.steps, "batch_size": args.batch, "precision": args.precision},
        "allocator": {"name": args.allocator},
        "budget": {"mean_rank": 8 if args.allocator == "uniform" else 6},
    }
    return [decode(TrialSpec, data | {"seed": seed % args.seeds}) for seed in range(count)]


def timed(work: Callable[[list[Path]], Any], count: int) -> float:
    """Wall seconds of trials in new folders."""
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder, str(index)) for index in range(count)]
        began = time.perf_counter()
        results = work(folders)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        took = time.perf_counter() - began
    assert all(result.status == "complete" for result in results)
    return took


def main() -> None:
    """Measure, print, and on an accelerator keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--at-once", default="1,2,4,8,16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--examples", type=int, help="of the training set; all of it when absent")
    parser.add_argument("--scored", type=int, help="of the search split; its usual size when absent")
    parser.add_argument("--seeds", type=int, default=10**6, help="1: all trials see the same batches")
    parser.add_argument("--allocator", default="uniform")
    parser.add_argument("--precision", default="fp32")
    args = parser.parse_args()
    args.data, args.model = (str(Path(path).resolve()) for path in (args.data, args.model))
    cuda = torch.cuda.is_available()
    first = specs(args, 1)[0]
    warm = first.model_copy(update={"training": first.training.model_copy(update={"steps": 2})})
    timed(lambda folders: run_trials([warm, warm], folders), 2)  # reads model and data, starts the device
    counts = [int(count) for count in args.at_once.split(",")]
    pairs: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}  # seconds a trial: at once, alone
    memory: dict[int, float] = {}
    for _ in range(args.repeats):
        for count in counts:
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            trials = specs(args, count)
            together = timed(lambda folders, trials=trials: run_trials(trials, folders), count) / count
            memory[count] = torch.cuda.max_memory_allocated() / 2**20 if cuda else 0.0
            alone = timed(lambda folders: [run_trial(first, folders[0])], 1)
            pairs[count].append((together, alone))
    how = {key: value for key, value in vars(args).items() if key not in ("data", "model", "at_once")}
    record = {
        "machine": machine() | {"device": torch.cuda.get_device_name() if cuda else "cpu"},
        "trial": how | {"model": Path(args.model).name},
        "seconds_per_trial": pairs,
        "peak_mib": memory,
    }
    rows = [
        f"| {count} | {3600 / statistics.median(a for a, _ in rows):,.0f} "
        f"| {3600 / statistics.median(b for _, b in rows):,.0f} | **{statistics.median(b / a for a, b in rows):.2f}** "
        f"| {min(b / a for a, b in rows):.2f} to {max(b / a for a, b in rows):.2f} | {memory[count]:,.0f} |"
        for count, rows in pairs.items()
    ]
    text = "\n".join(
        [
            "# Trials at once",
            "",
            "Whole trials, evaluation included, by `run_trials` and one by one, in turns in one process.",
            "",
            *(f"- {key}: {value}" for part in ("machine", "trial") for key, value in record[part].items()),  # type: ignore[attr-defined]
            "",
            "| at once | trials per hour | one by one | factor | spread | peak MiB |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )
    print(text)
    if cuda:
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / "together.json").write_text(json.dumps(record, indent=1) + "\n")
        (OUT / "together.md").write_text(text)


if __name__ == "__main__":
    main()
