"""`make bench`: rankopt's speed as ratios against stated peers doing the same work, alternately, in one run.

    python tests/bench/bench.py --data GLUE_FOLDER --model MODEL_FOLDER [--only step,spectral,...] [--repeats 5] [--add]

Samples are kept in `reports/performance/data.json`; measuring some bars leaves the others' samples alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
OUT = ROOT / "reports" / "performance"
BARS = {  # name: (our work, against what, the highest ratio wanted)
    "rte": ("a LoRA trial, r = 8, one epoch of RTE", "plain script", 0.50),
    "rte-grouped": ("the same", "plain script, length-grouped", 0.85),
    "sst2": ("a LoRA trial on 8,000 sentences of SST-2", "plain script", 0.40),
    "sst2-grouped": ("the same", "plain script, length-grouped", 0.85),
    "adalora": ("an AdaLoRA trial, r 12 -> 8, one epoch of RTE", "plain script with PEFT AdaLoRA", 0.50),
    "step-fp32-64": ("a LoRA step, 32 x 64 tokens, fp32", "frozen model, forward and backward", 1.12),
    "step-fp32-16": ("a LoRA step, 32 x 16 tokens, fp32", "frozen model, forward and backward", 1.12),
    "step-bf16-64": ("a LoRA step, 32 x 64 tokens, bf16", "frozen model, forward and backward", 1.12),
    "step-bf16-16": ("a LoRA step, 32 x 16 tokens, bf16", "frozen model, forward and backward", 1.12),
    "adalora-step": ("an AdaLoRA step, 32 x 64 tokens, fp32", "the LoRA step", 1.05),
    "memory": ("peak memory of the RTE LoRA trial", "plain script", 0.90),
    "spectral": ("spectra of 72 updates 768 x 768, r = 16", "dense SVD of each", 0.005),
    "study": ("a study of 24 short trials, one worker", "24 runs of the plain script", 0.40),
}
Samples = dict[str, list[tuple[float, float]]]  # name -> (ours, theirs) of every repetition


def alternate(repeats: int, *works: Callable[[], float]) -> list[tuple[float, ...]]:
    """What each work returns, in turns, so that a slow minute of the machine falls on all of them."""
    return [tuple(work() for work in works) for _ in range(repeats)]


def seconds(work: Callable[[], Any]) -> Callable[[], float]:
    """The work, timed."""

    def timed() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return timed


def bench_steps(model: str, repeats: int) -> Samples:
    """A training step on fixed shapes: forward, backward, AdamW; the limit is forward and backward of activations."""
    import torch
    from transformers import AutoModelForSequenceClassification, logging

    from rankopt.allocators.adalora import AdaLoRA
    from rankopt.core.budget import Budget
    from rankopt.core.spec import ModelSpec
    from rankopt.tasks import TASKS
    from rankopt.training.model import load_adapted

    logging.set_verbosity_error()
    samples: Samples = {}

    def limit(ids: Any, autocast: bool) -> Callable[[], None]:
        net = AutoModelForSequenceClassification.from_pretrained(model, num_labels=2, dtype=torch.float32).train()
        net.requires_grad_(False)

        def work() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                # the first layer's input needs a gradient, so that backward passes through every map
                inputs = net.bert.embeddings(ids).detach().requires_grad_()
                out = net(inputs_embeds=inputs, attention_mask=torch.ones_like(ids), labels=ids[:, 0] % 2)
            out.loss.backward()

        return work

    def step(ids: Any, autocast: bool, allocator: AdaLoRA | None) -> Callable[[], None]:
        rank = 12 if allocator else 8
        adapted = load_adapted(ModelSpec(name=model, max_rank=rank), "unit", TASKS["rte"], 0)
        state: Any = {}
        if allocator:
            state = allocator.start(adapted.layers, Budget(mean_rank=8), 1000, 0)
        else:
            for layer in adapted.layers.values():
                layer.open(rank)
                torch.nn.init.normal_(layer.A, std=0.05)
        trained = [p for p in adapted.net.train().parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
        now = [200]  # the budget is falling there: the allocator scores and selects at every step

        def work() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = adapted.net(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids[:, 0] % 2).loss
            if allocator:
                loss = loss + allocator.penalty(state, adapted.layers)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            if allocator:
                now[0] += 1
                allocator.after_step(state, adapted.layers, now[0])
            optimizer.zero_grad()

        return work

    for precision in ("fp32", "bf16"):
        for width in (64, 16):
            ids = torch.randint(1000, 20000, (32, width), generator=torch.Generator().manual_seed(0))
            works = [step(ids, precision == "bf16", None), limit(ids, precision == "bf16")]
            pair = (precision, width) == ("fp32", 64)
            if pair:
                works.append(step(ids, False, AdaLoRA()))
            for work in works:
                work()
            rows = alternate(max(repeats, 15), *map(seconds, works))
            samples[f"step-{precision}-{width}"] = [(row[0], row[1]) for row in rows]
            if pair:
                samples["adalora-step"] = [(row[2], row[0]) for row in rows]
    return samples


def bench_spectral(repeats: int) -> Samples:
    """Singular values of 72 updates from their factors, against the dense products' own decomposition."""
    import torch

    from rankopt.importance.spectral import spectrum

    generator = torch.Generator().manual_seed(0)
    A = torch.randn(72, 16, 768, generator=generator)
    B = torch.randn(72, 768, 16, generator=generator)
    spectrum(A, B)

    def dense() -> None:
        for a, b in zip(A, B, strict=True):
            torch.linalg.svd(b @ a)

    return {"spectral": alternate(repeats, seconds(lambda: spectrum(A, B)), seconds(dense))}  # type: ignore[dict-item]


def plain(data: str, model: str, *words: str) -> dict[str, float]:
    """One run of the plain script, start-up included."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).with_name("plain.py")), "--data", data, "--model", model]
        began = time.perf_counter()
        run = subprocess.run([*command, "--out", folder, *words], check=True, capture_output=True, text=True)
        took = time.perf_counter() - began
    return json.loads(run.stdout.splitlines()[-1]) | {"wall": took}


def study(data: str, model: str, base: dict[str, Any], space: dict[str, Any] | None = None) -> dict[str, float]:
    """One `rankopt run` in one worker, start-up included: wall time, mean score and the worker's peak memory."""
    base = {
        "task": {"data_dir": data, "max_length": 128, "protocol": "paper", **base.pop("task")},
        "model": {"name": model, "max_rank": 8, "alpha": 2.0, "scale": "unit"},
        "training": {"epochs": 1, "batch_size": 32, "warmup": 0, **base.pop("training", {})},
        "allocator": {"name": "uniform"},
        "budget": {"mean_rank": 8},
        **base,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bench.yaml")  # JSON is YAML
        path.write_text(json.dumps({"name": "bench", "base": base, "space": space or {}, "search": {"name": "grid"}}))
        command = [sys.executable, str(Path(__file__).with_name("peak.py")), sys.executable, "-m", "rankopt", "run"]
        cold = os.environ | {"RANKOPT_CACHE": str(Path(folder, "cache"))}  # an earlier run must not help
        command += [str(path), "--wandb", "disabled"]
        began = time.perf_counter()
        run = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, env=cold)
        took = time.perf_counter() - began
        shown = subprocess.run(
            [sys.executable, "-m", "rankopt", "show", "bench", "--json"],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        )
        results = json.loads(shown.stdout)["results"]
        scores = [next(iter(result["points"][0]["report"]["validation"].values())) for result in results]
    return {"wall": took, "score": statistics.mean(scores), "peak_mib": float(run.stderr.splitlines()[-1])}


def bench_trials(name: str, data: str, model: str, repeats: int, scores: dict[str, Any]) -> Samples:
    """Whole trials from a cold start: rankopt against the plain script, random and length-grouped."""
    task = "sst2" if name == "sst2" else "rte"
    words = ["--task", task] + (["--examples", "8000"] if task == "sst2" else [])
    base: dict[str, Any] = {"task": {"name": task, **({"train_examples": 8000} if task == "sst2" else {})}}
    if name == "adalora":
        words += ["--method", "adalora"]
        base |= {"allocator": {"name": "adalora", "warmup": 0.125, "final": 0.5}}
        base |= {"model": {"name": model, "max_rank": 12, "alpha": 2.0, "scale": "unit"}}
    samples: Samples = {}
    first = len(scores.get(name, []))  # seeds measured before
    for seed in range(first, first + repeats):
        ours = study(data, model, json.loads(json.dumps(base | {"seed": seed})))
        theirs = plain(data, model, *words, "--seed", str(seed))
        samples.setdefault(name, []).append((ours["wall"], theirs["wall"]))
        scores.setdefault(name, []).append((ours["score"], theirs["score"]))
        if name == "rte":
            samples.setdefault("memory", []).append((ours["peak_mib"], theirs["peak_mib"]))
        if name != "adalora":
            grouped = plain(data, model, *words, "--seed", str(seed), "--group")
            samples.setdefault(f"{name}-grouped", []).append((ours["wall"], grouped["wall"]))
        print(name, {key: values[-1] for key, values in samples.items()}, flush=True)
    return samples


def bench_study(data: str, model: str, repeats: int) -> Samples:
    """24 trainings of ten steps, each scored on RTE's validation split."""
    samples: Samples = {"study": []}
    for _ in range(repeats):
        base = {"task": {"name": "rte", "train_examples": 320}, "training": {"steps": 10}}
        ours = study(data, model, base, {"seed": list(range(24))})["wall"]
        words = ("--examples", "320", "--steps", "10")
        theirs = sum(plain(data, model, *words, "--seed", str(seed))["wall"] for seed in range(24))
        samples["study"].append((ours, theirs))
    return samples


def machine() -> dict[str, str]:
    """What the numbers were measured on and with."""
    from rankopt.study.plan import seconds_per_flop

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    slower = seconds_per_flop("bf16") > 2 * seconds_per_flop("fp32")
    packages = ("torch", "transformers", "peft", "optuna", "rankopt")
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "bf16": "emulated, slower than fp32" if slower else "by instructions",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "packages": ", ".join(f"{name} {version(name)}" for name in packages),
    }


def write(record: dict[str, Any]) -> None:
    """`data.json` and the table in `report.md`."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "data.json").write_text(json.dumps(record, indent=1) + "\n")
    rows = []
    for name, (work, against, bar) in BARS.items():
        pairs = record["samples"].get(name)
        if not pairs:
            rows.append(f"| {work} | {against} | {bar} | not measured | | | |")
            continue
        ratios = [ours / theirs for ours, theirs in pairs]
        middle = statistics.median(ratios)
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        verdict = "met" if middle <= bar else "missed"
        digits = 4 if bar < 0.1 else 2
        spread = f"{min(ratios):.{digits}f} to {max(ratios):.{digits}f}"
        rows.append(
            f"| {work} | {against} | {bar} | **{middle:.{digits}f}** ({verdict}) | {spread} "
            f"| {ours:.4g} / {theirs:.4g} | {len(pairs)} |"
        )
    scores = [
        f"| {BARS[name][0]} | {statistics.mean(a for a, _ in pairs):.3f} | {statistics.mean(b for _, b in pairs):.3f} "
        f"| {', '.join(f'{a - b:+.3f}' for a, b in pairs)} |"
        for name, pairs in record["scores"].items()
    ]
    text = [
        "# Performance",
        "",
        "Ratios of rankopt's time (or memory) to a peer's that does the same work, measured in turns by `make bench`.",
        "Below 1 rankopt is faster. Trials include the process's start. The plain script is `tests/bench/plain.py`.",
        "",
        *(f"- {key}: {value}" for key, value in record["machine"].items()),
        "",
        "| work | against | bar | median ratio | spread | medians, s or MiB | repetitions |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        "Accuracy on validation after the same training, ours and the plain script's, by seed:",
        "",
        "| work | ours | plain | differences |",
        "| --- | --- | --- | --- |",
        *scores,
        "",
    ]
    (OUT / "report.md").write_text("\n".join(text))


def main() -> None:
    """Measure what was asked for and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--only", default="step,spectral,rte,adalora,sst2,study")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--add", action="store_true", help="keep this machine's earlier samples of the part too")
    args = parser.parse_args()
    data, model = (str(Path(path).resolve()) for path in (args.data, args.model))
    path = OUT / "data.json"
    record = {"machine": machine(), "samples": {}, "scores": {}}
    if path.exists() and (earlier := json.loads(path.read_text()))["machine"] == record["machine"]:
        record = earlier  # parts may be measured one by one, but on one machine
    for name in args.only.split(","):
        if not args.add:
            record["scores"].pop(name, None)
        if name == "step":
            samples = bench_steps(model, args.repeats)
        elif name == "spectral":
            samples = bench_spectral(args.repeats)
        elif name == "study":
            samples = bench_study(data, model, args.repeats)
        else:
            samples = bench_trials(name, data, model, args.repeats, record["scores"])
        for bar, pairs in samples.items():
            record["samples"][bar] = (record["samples"].get(bar, []) if args.add else []) + pairs
        write(record)
    print((OUT / "report.md").read_text())


if __name__ == "__main__":
    main()
