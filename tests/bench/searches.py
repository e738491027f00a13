"""Searches on the forward passes of a super-network: `reports/search_replays/`.

    python tests/bench/searches.py table mini-cola      # minutes: trains the super-network and scores every pattern
    python tests/bench/searches.py report               # about a minute: replays the searches, and writes report.md

The super-network is `nested` on a mini task. A pattern has the cost of mean rank 2 and is given as in the allocator
`profile`: a logit for each of four groups of layers, and a slope over depth, three values each. Every pattern is scored
once on the search split, so a replay of a search needs neither the network nor the data.
"""

from __future__ import annotations

import copy
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[2] / "reports" / "search_replays"
GROUPS = {
    "query and key": ["*.query", "*.key"],
    "value": ["*.value"],
    "attention output": ["*.attention.output.dense"],
    "feed-forward": ["*.intermediate.dense", "*[0-9].output.dense"],
}
LOGITS = (-1.5, 0.0, 1.5)
SEARCHES = {
    "random": {},
    "tpe": {},
    "evolution": {},
    "reinforce": {},
}
SEEDS, TRIALS, SHOWN = 30, 60, (10, 20, 40, 60)


def make_table(task: str) -> None:
    """Train the super-network, score all patterns, and write one row a line."""
    from rankopt.allocators.profile import Profile
    from rankopt.core.budget import Budget
    from rankopt.core.spec import decode
    from rankopt.core.trial_spec import TrialSpec
    from rankopt.lowrank.layers import pattern_of, shapes_of
    from rankopt.training.evaluate import Looks
    from rankopt.training.prepare import prepare
    from rankopt.training.train import train

    spec = {
        "task": {"name": task},
        "model": {"name": "mini", "max_rank": 8, "alpha": 2.0, "scale": "unit"},
        "allocator": {"name": "nested"},
        "training": {"epochs": 2, "batch_size": 32, "lr": 2.0e-3},
    }
    prepared = prepare(decode(TrialSpec, spec))
    blank = copy.deepcopy(prepared.adapted.layers)
    with tempfile.TemporaryDirectory() as folder:
        trained = train(prepared, Path(folder))
    layers = prepared.adapted.layers
    prepared.allocator.finish(trained.state, layers)
    looks = Looks(prepared.adapted, prepared.data.held_out["search"], prepared.task, 128, "fp32")
    known: dict[Any, Any] = {}
    began = time.perf_counter()
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / f"{task}.jsonl").open("w", encoding="utf-8") as file:
        for *logits, slope in itertools.product(LOGITS, repeat=len(GROUPS) + 1):
            groups = dict(zip(GROUPS, logits, strict=True))
            types = {glob: groups[name] for name, globs in GROUPS.items() for glob in globs}
            Profile(types=types, slope=slope).start(blank, Budget(mean_rank=2, unit="parameters"), 1, 0)
            pattern = pattern_of(blank)
            if pattern not in known:
                known[pattern] = looks(pattern)
            row = {
                "task": task,
                "metric": prepared.task.metrics[0],
                "configuration": {**groups, "slope": slope},
                "score": round(known[pattern].score, 6),
                "parameters": pattern.parameters(shapes_of(layers)),
            }
            file.write(json.dumps(row) + "\n")
    print(f"{len(known)} patterns in {time.perf_counter() - began:.0f} s")


def make_report() -> None:
    """Replay every search on every table, and write the page."""
    from rankopt.analysis.blackbox import BlackBox, Row
    from rankopt.core.spec import Named
    from rankopt.search.replay import replay, replayed_search

    lines = []
    for path in sorted(OUT.glob("*.jsonl")):
        rows = [Row.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
        box = BlackBox(rows)
        ordered = sorted(box.scores)
        lines += [
            f"## {rows[0].task}", "",
            f"{len(rows)} configurations, {rows[0].metric} from {ordered[0]:.3f} to {ordered[-1]:.3f}, median "
            f"{ordered[len(ordered) // 2]:.3f}.", "",
            "| search | " + " | ".join(f"after {n}" for n in SHOWN) + f" | less than random after {TRIALS} |",
            "| --- |" + " --- |" * (len(SHOWN) + 1),
        ]  # fmt: skip
        regrets: dict[str, list[list[float]]] = {}
        for name, options in SEARCHES.items():
            searches = [replayed_search(Named(name=name, **options), TRIALS, s, ["score"]) for s in range(SEEDS)]
            regrets[name] = [[step.regret for step in replay(box, search)] for search in searches]
            cells = [_mean([run[n - 1] for run in regrets[name]]) for n in SHOWN]
            gains = [a[-1] - b[-1] for a, b in zip(regrets["random"], regrets[name], strict=True)]
            lines.append(f"| {name} | {' | '.join(cells)} | {_mean(gains) if name != 'random' else ''} |")
            print(lines[-1], flush=True)
        lines.append("")
    notes = (OUT / "notes.md").read_text(encoding="utf-8") if (OUT / "notes.md").exists() else ""
    head = [
        "# Searches on a super-network's forward passes", "",
        "Mean regret with its standard error over replays: the best score of the table minus the score of the best",
        f"configuration that a search found with so many proposals; {SEEDS} seeds, the same for every search.",
        "`python tests/bench/searches.py` makes the tables and this page; `rankopt blackbox FILE --search NAME`",
        "replays one table.", "",
    ]  # fmt: skip
    (OUT / "report.md").write_text("\n".join([*head, *lines, notes]), encoding="utf-8")


def _mean(values: list[float]) -> str:
    from rankopt.analysis.statistics import summarize

    found = summarize(values)
    return f"{found.mean:.4f} ± {found.error:.4f}"


if __name__ == "__main__":
    if sys.argv[1] == "table":
        make_table(sys.argv[2])
    else:
        make_report()
