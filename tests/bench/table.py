"""What `make bench` keeps: `reports/performance/data.json`, and `report.md` made of it and of `notes.md`."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scipy import stats

from rankopt.allocators import ALLOCATORS

ROOT = Path(__file__).parents[2]
OUT = ROOT / "reports" / "performance"
DATA = OUT / "data.json"
ENOUGH = 5
"""Repetitions below which nothing is called met or missed."""
STEP = "frozen model, forward and backward"
LEAN = "the same with rankopt's dropout, roundings and last block"
EXTRA = {
    "autolora": "a forward and a backward pass of another batch while gates are learned",
    "alora": "two forward passes for every component in a round",
    "increlora": "the gradient of every whole weight while layers grow",
}
"""Methods whose papers need more than a forward and a backward pass of the factors; they have no bar."""
BARS = {  # name: (our work, against what, the highest ratio wanted)
    "rte": ("a LoRA trial, r = 8, one epoch of RTE", "plain script", 0.50),
    "rte-grouped": ("the same", "plain script, length-grouped", 0.85),
    "sst2": ("a LoRA trial on 8,000 sentences of SST-2", "plain script", 0.40),
    "sst2-grouped": ("the same", "plain script, length-grouped", 0.85),
    "adalora": ("an AdaLoRA trial, r 12 -> 8, one epoch of RTE", "plain script with PEFT AdaLoRA", 0.50),
    "memory": ("peak memory of the process of the RTE LoRA trial", "plain script", 0.90),
    "text": ("a LoRA trial of a decoder, r = 8, 480 rows of E2E", "plain script, completions, length-grouped", 0.85),
    "text-memory": ("peak memory of its process", "plain script, completions, length-grouped", 0.90),
    "study": ("a study of 24 short trials, one worker", "24 runs of the plain script", 0.40),
    **{
        f"{kind}-{precision}-{width}": (f"a LoRA step, 32 x {width} tokens, {precision}", peer, 1.12)
        for precision in ("fp32", "bf16")
        for width in (64, 16)
        for kind, peer in {"step": STEP, "lean": LEAN}.items()
    },
    **{
        f"{kind}-fp32-{width}": (f"an AdaLoRA step, r = 12, 32 x {width} tokens, fp32", peer, bar)
        for width in (64, 16)
        for kind, peer, bar in (("adalora", "the LoRA step, r = 8", 1.05), ("allocator", "a LoRA step, r = 12", 1.03))
    },
    **{
        f"{kind}-{r}-{tokens}": (f"one block's maps, {passes}, r = {r}, {tokens} tokens", peer, bar)
        for r in (8, 32)
        for tokens in (512, 2048)
        for kind, passes, peer, bar in (
            ("paths", "forward and backward", "W + s B A made first", 1.05),
            ("forward", "forward", "thin products", 1.0),
        )
    },
    **{
        f"method-{name}": (
            f"steps of `{name}`",
            "as many of uniform LoRA of its rank",
            math.inf if name in EXTRA else 1.10,
        )
        for name in ALLOCATORS
    },
    "spectral": ("spectra of 72 updates 768 x 768, r = 16", "dense SVD of each", 0.005),
}
Pairs = list[tuple[float, float]]  # (ours, theirs) of every repetition


def machine() -> dict[str, str]:
    """What the numbers are measured on and with."""
    from rankopt.study.preflight import seconds_per_flop
    from rankopt.training.device import choose_device

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    slower = seconds_per_flop("bf16", choose_device()) > 2 * seconds_per_flop("fp32", choose_device())
    packages = ("torch", "transformers", "peft", "optuna", "rankopt")
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "bf16": "emulated, slower than fp32" if slower else "by instructions",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "packages": ", ".join(f"{name} {version(name)}" for name in packages),
    }


def earlier(part: str) -> int:
    """How many samples of a part, "step" or "rte" say, there are to add to.

    Raises:
        SystemExit: they are another machine's or another code's.
    """
    name = part if part in BARS else next(name for name in BARS if name.startswith(f"{part.removesuffix('s')}-"))
    before, where = _record().get(name), _where()
    if not before:
        return 0
    if any(before[key] != where[key] for key in where):
        raise SystemExit(f"--add: the samples of {part} are of {before['code']}, {before['machine']}")
    return len(before["pairs"])


def keep(samples: dict[str, Pairs], scores: dict[str, Pairs], add: bool) -> None:
    """Put samples in the place of the earlier ones, or `add` them, and write the report.

    Args:
        add: checked by `earlier` before they were measured.
    """
    record, where = _record(), _where()
    for name, pairs in samples.items():
        now = where | {"day": date.today().isoformat(), "pairs": pairs, "scores": scores.get(name, [])}
        if add and (before := record.get(name)):
            for key in ("pairs", "scores"):
                now[key] = before[key] + now[key]
        record[name] = now
    record = {name: record[name] for name in BARS if name in record}
    OUT.mkdir(parents=True, exist_ok=True)
    DATA.write_text(json.dumps(record, indent=1) + "\n")
    notes = OUT / "notes.md"
    (OUT / "report.md").write_text(report(record, notes.read_text() if notes.exists() else ""))


def _record() -> dict[str, Any]:
    return json.loads(DATA.read_text()) if DATA.exists() else {}


def _where() -> dict[str, Any]:
    from rankopt.training.environment import code_revision

    return {"machine": machine(), "code": code_revision()}


def report(record: dict[str, Any], notes: str) -> str:
    """The page: ratios against their bars, scores, where it was measured, and the notes."""
    places: list[dict[str, Any]] = []
    rows = []
    for name, (work, against, bar) in BARS.items():
        if name not in record:
            rows.append(f"| {work} | {against} | {bar} | not measured | | | | |")
            continue
        pairs = record[name]["pairs"]
        place = {key: record[name][key] for key in ("machine", "code", "day")}
        if place not in places:
            places.append(place)
        ratios = [ours / theirs for ours, theirs in pairs]
        middle = statistics.median(ratios)
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        verdict = ("met" if middle <= bar else "missed") if len(pairs) >= ENOUGH else "too few"
        digits = 4 if bar < 0.1 else 2
        spread = f"{min(ratios):.{digits}f} to {max(ratios):.{digits}f}"
        limit = "none" if bar == math.inf else bar
        rows.append(
            f"| {work} | {against} | {limit} | **{middle:.{digits}f}** ({verdict}) | {spread} "
            f"| {ours:.4g} / {theirs:.4g} | {len(pairs)} | {places.index(place) + 1} |"
        )
    return "\n".join(
        [
            "# Performance",
            "",
            "Ratios of rankopt's time (or memory) to a peer's at the same work, measured in turns by `make bench`.",
            "Below 1 rankopt is faster. Trials include the process's start. The plain script, `tests/bench/plain.py`,",
            "has the same rows, maps, rank, batches, updates, precision and evaluation, by Trainer and PEFT.",
            "",
            "| work | against | bar | median ratio | spread | medians, s or MiB | times | where |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            "Accuracy on the validation split after the same training, by pairs of equal seeds:",
            "",
            "| work | against | ours | plain | mean difference, 95 % interval | seeds |",
            "| --- | --- | --- | --- | --- | --- |",
            *(_score(name, record[name]["scores"]) for name in BARS if record.get(name, {}).get("scores")),
            "",
            "Where:",
            "",
            *(
                f"{number}. {place['day']}, code {place['code']}: "
                + ", ".join(f"{key} {value}" for key, value in place["machine"].items())
                for number, place in enumerate(places, 1)
            ),
            "",
            *([notes] if notes else []),
        ]
    )


def _score(name: str, pairs: Pairs) -> str:
    gaps = [ours - theirs for ours, theirs in pairs]
    interval = "one seed"
    if len(gaps) > 1:
        half = stats.t.ppf(0.975, len(gaps) - 1) * statistics.stdev(gaps) / math.sqrt(len(gaps))
        interval = f"{statistics.mean(gaps):+.3f} ± {half:.3f}"
    ours, theirs = (statistics.mean(column) for column in zip(*pairs, strict=True))
    work, against = BARS[name.removesuffix("-grouped")][0], BARS[name][1]
    return f"| {work} | {against} | {ours:.3f} | {theirs:.3f} | {interval} | {len(gaps)} |"
