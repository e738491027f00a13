"""`make bench`: rankopt's speed as ratios against stated peers doing the same work, alternately, in one run.

    python tests/bench/bench.py --data GLUE_FOLDER --model MODEL_FOLDER [--only step,paths,...] [--repeats 5] [--add]
    python tests/bench/bench.py --only text --data E2E_FOLDER [--repeats 5]
    python tests/bench/bench.py --only methods [--methods adalora,sora] [--repeats 5]

Samples are kept in `reports/performance/data.json`, each with the machine, the code and the day; measuring some bars
leaves the others' samples alone.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from methods import bench_methods
from table import OUT, Pairs, earlier, keep
from text import small_decoder, text_task

from rankopt.allocators import ALLOCATORS

PEAK = [sys.executable, str(Path(__file__).with_name("peak.py"))]
"""Runs the others: a process begins with its parent's peak memory, and this one has none."""


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


def bench_steps(model: str, repeats: int) -> dict[str, Pairs]:
    """A training step on fixed shapes: forward, backward, clipping, AdamW, against the frozen model's own passes.

    The frozen model computes what a LoRA step cannot do without: forward, and backward as far as the first layer's
    three projections. "lean" is given what rankopt does for the frozen model too: cheap dropout, weights rounded to
    bf16 beforehand, and a last block for the first token alone.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, logging

    from rankopt.allocators.adalora import AdaLoRA
    from rankopt.core.budget import Budget
    from rankopt.core.trial_spec import ModelSpec
    from rankopt.tasks import TASKS
    from rankopt.training.dropout import use_lean_dropout
    from rankopt.training.first_token import keep_first_token
    from rankopt.training.model import load_adapted

    logging.set_verbosity_error()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    samples: dict[str, Pairs] = {}

    def loss_of(net: Any, ids: Any, autocast: bool) -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            return net(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids[:, 0] % 2).loss

    def timed(work: Callable[[], None]) -> Callable[[], float]:
        def done() -> None:
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return seconds(done)

    def limit(ids: Any, autocast: bool, lean: bool) -> Callable[[], None]:
        net = AutoModelForSequenceClassification.from_pretrained(model, num_labels=2, dtype=torch.float32)
        net.to(device).train()
        net.requires_grad_(False)
        first = net.bert.encoder.layer[0].attention.self
        for name in ("query", "key", "value"):  # backward begins to be needed behind them
            first.get_submodule(name).register_forward_hook(lambda module, x, y: y.detach().requires_grad_())
        if lean:
            assert keep_first_token(net, ("classifier",))
            if device.type == "cpu":  # elsewhere rankopt leaves torch's own
                use_lean_dropout(net)
            for module in net.modules():
                if autocast and isinstance(module, torch.nn.Linear):
                    module.to(torch.bfloat16)

        return lambda: loss_of(net, ids, autocast).backward()

    def step(ids: Any, autocast: bool, rank: int, allocator: AdaLoRA | None = None) -> Callable[[], None]:
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
            loss = loss_of(adapted.net, ids, autocast)
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
            ids = torch.randint(1000, 20000, (32, width), generator=torch.Generator().manual_seed(0)).to(device)
            low = precision == "bf16"
            works = [step(ids, low, 8), limit(ids, low, False), limit(ids, low, True)]
            if not low:
                works += [step(ids, low, 12, AdaLoRA()), step(ids, low, 12)]
            for _ in range(3):
                for work in works:
                    work()
            rows = alternate(max(repeats, 30), *map(timed, works))
            shape = f"{precision}-{width}"
            samples[f"step-{shape}"] = [(row[0], row[1]) for row in rows]
            samples[f"lean-{shape}"] = [(row[0], row[2]) for row in rows]
            if not low:
                samples[f"adalora-{shape}"] = [(row[3], row[0]) for row in rows]
                samples[f"allocator-{shape}"] = [(row[3], row[4]) for row in rows]
    return samples


def bench_paths(repeats: int) -> dict[str, Pairs]:
    """The gated maps of one of MiniLM's blocks as `gated_linear` does them, against the path that it does not take.

    Forward alone, with nothing to train, it makes `W + s B A` first and the peer takes thin products, which it would
    take itself with gradients on. Forward and backward it is the other way round.
    """
    import torch
    from torch.nn import functional

    from rankopt.lowrank.gated import _Gated, gated_linear

    class Merged(_Gated):  # its backward is the same and needs A x
        @staticmethod
        def forward(ctx: Any, x: Any, W: Any, bias: Any, A: Any, B: Any, g: Any, s: float) -> Any:
            ctx.save_for_backward(x, A @ x.T, W, A, B, g)
            ctx.s = s
            return functional.linear(x, torch.addmm(W, B * (g * s), A), bias)

    def merged(x: Any, *others: Any) -> Any:  # wrapped as the other is
        return Merged.apply(x.reshape(-1, x.shape[-1]), *others).view(*x.shape[:-1], -1)

    samples: dict[str, Pairs] = {}
    for r in (8, 32):
        for tokens in (512, 2048):
            maps = []
            for fan_out, fan_in in [(384, 384)] * 4 + [(1536, 384), (384, 1536)]:
                shapes = [(tokens, fan_in), (fan_out, fan_in), (fan_out,), (r, fan_in), (fan_out, r), (r,)]
                maps.append([torch.randn(shape) for shape in shapes])

            def forward(gradients: bool, maps: list[Any] = maps) -> Callable[[], None]:
                def block() -> None:
                    with torch.set_grad_enabled(gradients):
                        for one in maps:
                            gated_linear(*one, 0.5)

                return block

            def both(apply: Callable[..., Any], maps: list[Any] = maps) -> Callable[[], None]:
                trained = [[t.clone().requires_grad_(i not in (1, 2)) for i, t in enumerate(one)] for one in maps]

                def block() -> None:
                    for one in trained:
                        y = apply(*one, 0.5)
                        torch.autograd.grad(y, [t for t in one if t.requires_grad], y.detach())

                return block

            for kind, works in {
                "forward": [forward(False), forward(True)],
                "paths": [both(gated_linear), both(merged)],
            }.items():
                for warm in works * 3:
                    warm()
                pairs = alternate(max(repeats, 30), *map(seconds, works))
                samples[f"{kind}-{r}-{tokens}"] = pairs  # type: ignore[assignment]
    return samples


def bench_spectral(repeats: int) -> dict[str, Pairs]:
    """Singular values of 72 updates from their factors, against the dense products' own decomposition."""
    import torch

    from rankopt.importance.spectral import low_rank_svd, one_thread

    generator = torch.Generator().manual_seed(0)
    A = torch.randn(72, 16, 768, generator=generator)
    B = torch.randn(72, 768, 16, generator=generator)

    @one_thread()
    def thin() -> None:  # layer by layer, as everything in rankopt that asks for spectra
        for a, b in zip(A, B, strict=True):
            low_rank_svd(a, b)

    def dense() -> None:
        for a, b in zip(A, B, strict=True):
            torch.linalg.svd(b @ a)

    thin()
    return {"spectral": alternate(repeats, seconds(thin), seconds(dense))}  # type: ignore[dict-item]


def rows(data: str, task: str, count: int | None, folder: Path) -> str:
    """The rows that rankopt trains and is scored on, written out for the plain script; returns their folder."""
    from rankopt.tasks import TASKS
    from rankopt.tasks.splits import read_splits

    splits = read_splits(TASKS[task], data_dir=data, train_examples=count, protocol="paper")
    splits.train.to_parquet(folder / "train.parquet")
    splits.search.to_parquet(folder / "validation.parquet")
    return str(folder)


def plain(data: str, model: str, *words: str, script: str = "plain.py") -> dict[str, float]:
    """One run of a plain script, start-up included."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*PEAK, sys.executable, str(Path(__file__).with_name(script)), "--data", data, "--model", model]
        began = time.perf_counter()
        run = subprocess.run([*command, "--out", folder, *words], check=True, capture_output=True, text=True)
        took = time.perf_counter() - began
    return json.loads(run.stdout.splitlines()[-1]) | {"wall": took, "peak_mib": float(run.stderr.splitlines()[-1])}


def glue(data: str, name: str, count: int | None) -> dict[str, Any]:
    """A GLUE task of a study, scored on the validation split alone."""
    task = {"name": name, "data_dir": data, "max_length": 128, "protocol": "paper"}
    return task | ({"train_examples": count} if count else {})


def study(model: str, base: dict[str, Any], space: dict[str, Any] | None = None) -> dict[str, float]:
    """One `rankopt run` in one worker, start-up included: wall time, mean score, the worker's peak memory, and what
    the first trial did."""
    base = {
        "model": {"name": model, "max_rank": 8, "alpha": 2.0, "scale": "unit"},
        "training": {"epochs": 1, "batch_size": 32, "warmup": 0, **base.pop("training", {})},
        "allocator": {"name": "uniform"},
        "budget": {"mean_rank": 8},
        **base,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bench.yaml")  # JSON is YAML
        path.write_text(json.dumps({"name": "bench", "base": base, "space": space or {}, "search": {"name": "grid"}}))
        command = [*PEAK, sys.executable, "-m", "rankopt", "run"]
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
        reports = [next(iter(result["points"][0]["report"].values())) for result in results]
        scores = [next(iter(report.values())) for report in reports]
    return {
        "wall": took,
        "score": statistics.mean(scores),
        "peak_mib": float(run.stderr.splitlines()[-1]),
        "steps": results[0]["cost"]["steps"],
        "parameters": results[0]["parameters"]["trained"] + results[0]["parameters"]["head"],
    }


def bench_trials(name: str, data: str, model: str, repeats: int, first: int) -> tuple[dict[str, Pairs], ...]:
    """Whole trials from a cold start, against the plain script, random and length-grouped; and what they score.

    Args:
        name: of the bar.
        first: the first seed; those below it are measured already.
    """
    task, count = ("sst2", 8000) if name == "sst2" else ("rte", None)
    base: dict[str, Any] = {"task": glue(data, task, count)}
    words: list[str] = []
    if name == "adalora":
        words = ["--method", "adalora"]
        base |= {"allocator": {"name": "adalora", "warmup": 0.125, "final": 0.5}}
        base |= {"model": {"name": model, "max_rank": 12, "alpha": 2.0, "scale": "unit"}}
    samples: dict[str, Pairs] = {}
    scores: dict[str, Pairs] = {}
    with tempfile.TemporaryDirectory() as folder:
        same = rows(data, task, count, Path(folder))
        for seed in range(first, first + repeats):
            ours = study(model, copy.deepcopy(base) | {"seed": seed})
            for bar, more in {name: [], f"{name}-grouped": ["--group"]}.items():
                if bar == "adalora-grouped":
                    continue
                theirs = plain(same, model, *words, *more, "--seed", str(seed))
                samples.setdefault(bar, []).append((ours["wall"], theirs["wall"]))
                scores.setdefault(bar, []).append((ours["score"], theirs["score"]))
                for what in ("steps", "parameters"):
                    if ours[what] != theirs[what]:
                        raise SystemExit(f"{bar}: not the same work, {ours[what]} against {theirs[what]} {what}")
                if bar == "rte":
                    samples.setdefault("memory", []).append((ours["peak_mib"], theirs["peak_mib"]))
            print({bar: pairs[-1] for bar, pairs in samples.items()}, flush=True)
    return samples, scores


def bench_text(data: str, repeats: int, first: int) -> dict[str, Pairs]:
    """Whole trials of a small decoder on E2E, against the plain script with batches by length; who begins alternates.

    Args:
        data: folder with E2E's files.
        first: the first seed; those below it are measured already.
    """
    samples: dict[str, Pairs] = {"text": [], "text-memory": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = text_task(data, folder)
        model = small_decoder(folder / "train.csv", folder / "decoder")
        training = {"batch_size": 8, "lr": 2e-3}
        for seed in range(first, first + repeats):

            def ours(seed: int = seed) -> dict[str, float]:
                return study(model, {"task": dict(task), "training": dict(training), "seed": seed})

            def theirs(seed: int = seed) -> dict[str, float]:
                return plain(name, model, "--seed", str(seed), script="plain_text.py")

            one, other = (ours(), theirs()) if seed % 2 == 0 else (theirs(), ours())[::-1]
            if (one["steps"], one["parameters"]) != (other["steps"], other["parameters"]):
                raise SystemExit(f"text: not the same work, {one} against {other}")
            samples["text"].append((one["wall"], other["wall"]))
            samples["text-memory"].append((one["peak_mib"], other["peak_mib"]))
            print(one, other, flush=True)
    return samples


def bench_study(data: str, model: str, repeats: int) -> dict[str, Pairs]:
    """24 trainings of ten steps, each scored on RTE's validation split."""
    samples: dict[str, Pairs] = {"study": []}
    base = {"task": glue(data, "rte", 320), "training": {"steps": 10}}
    with tempfile.TemporaryDirectory() as folder:
        same = rows(data, "rte", 320, Path(folder))
        for _ in range(repeats):
            ours = study(model, copy.deepcopy(base), {"seed": list(range(24))})["wall"]
            theirs = sum(plain(same, model, "--steps", "10", "--seed", str(seed))["wall"] for seed in range(24))
            samples["study"].append((ours, theirs))
            print(samples["study"][-1], flush=True)
    return samples


def main() -> None:
    """Measure what was asked for and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=".")
    parser.add_argument("--model", default=".")
    parser.add_argument("--only", default="step,paths,spectral,methods,rte,adalora,sst2,study")
    parser.add_argument("--methods", default=",".join(ALLOCATORS), help="allocators, for --only methods")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--add", action="store_true", help="to the samples of the same machine and code")
    args = parser.parse_args()
    data, model = (str(Path(path).resolve()) for path in (args.data, args.model))
    for name in args.only.split(","):
        scores: dict[str, Pairs] = {}
        before = earlier(name) if args.add else 0
        if name == "step":
            samples = bench_steps(model, args.repeats)
        elif name == "paths":
            samples = bench_paths(args.repeats)
        elif name == "methods":
            samples = bench_methods(args.repeats, args.methods.split(","))
        elif name == "spectral":
            samples = bench_spectral(args.repeats)
        elif name == "text":
            samples = bench_text(data, args.repeats, first=before)
        elif name == "study":
            samples = bench_study(data, model, args.repeats)
        else:
            samples, scores = bench_trials(name, data, model, args.repeats, first=before)
        keep(samples, scores, add=args.add)
    print((OUT / "report.md").read_text())


if __name__ == "__main__":
    main()
