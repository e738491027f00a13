"""Searches on the trainings of a full grid: `reports/rank_grid/searches.md`.

    python tests/bench/search_trainings.py oneshot --set task.data_dir=GLUE_FOLDER --set model.name=MODEL_FOLDER
    python tests/bench/search_trainings.py report       # a minute: replays the searches, and writes searches.md

`reports/rank_grid/results.jsonl` has a training for every combination of budget, pattern and learning rate at two
seeds, so a replay of a search needs neither the model nor the data. `oneshot` trains three super-networks and scores
every pattern with each of them.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean

from scipy import stats

from rankopt.analysis.blackbox import BlackBox, Row, rows_of
from rankopt.analysis.statistics import summarize
from rankopt.core.spec import Named
from rankopt.search.replay import Step, replay, replayed_search
from rankopt.study.results_file import read_results
from rankopt.study.results_merge import merge

ROOT = Path(__file__).parents[2]
OUT = ROOT / "reports" / "rank_grid"
NETWORK = {"name": "nested", "recovery": 0.1667, "looks": 5}
STEPS, LR = 144, 1.5e-3
"""Of a super-network: 1.2 times the steps of a training, at the learning rate that `nested` chose in benchmark_lite."""
SEEDS, SHOWN = 30, (10, 20, 40)
SEARCHES = {
    "score": ("random", "tpe", "evolution", "reinforce"),
    "both": ("random", "tpe", "nsga2"),
}
COLLAPSED = 0.6
"""Accuracies below are those of trainings that learned nothing; the most frequent class has 0.51."""
COORDINATES = {
    "query, key and value": "allocator.types.*.query",
    "feed-forward maps": "allocator.types.*.output.dense",
    "later layers": "allocator.slope",
}
OBJECTIVES = {"score": ["score"], "both": ["score", "parameters"]}


def table() -> list[Row]:
    """The trainings of the grid."""
    return rows_of(merge(read_results([OUT / "results.jsonl"]).entries).results())


def place(row: Row) -> str:
    """Where a training's ranks are: every field of its configuration except the learning rate."""
    return json.dumps({name: value for name, value in row.configuration.items() if name != "training.lr"})


def is_uniform(row: Row) -> bool:
    return all(value == 0 for name, value in row.configuration.items() if name.startswith("allocator."))


def budget(row: Row) -> int:
    return int(row.configuration["budget.mean_rank"])  # type: ignore[arg-type]


def rate(row: Row) -> float:
    return float(row.configuration["training.lr"])  # type: ignore[arg-type]


def make_networks(overrides: list[str]) -> None:
    """Train the super-networks, score every pattern of the grid with each, and write one row a line."""
    from rankopt import Study
    from rankopt.core.pattern import RankPattern
    from rankopt.core.spec import decode
    from rankopt.core.trial_spec import TrialSpec
    from rankopt.training.evaluate import Looks
    from rankopt.training.prepare import prepare
    from rankopt.training.train import train

    base = Study.load(ROOT / "studies" / "rank_grid.yaml", overrides=overrides).spec.base
    training = {**base["training"], "steps": STEPS, "lr": LR}
    base = {**base, "allocator": NETWORK, "training": training}
    patterns = {place(row): row for row in table()}
    with (OUT / "oneshot.jsonl").open("w", encoding="utf-8") as file:
        for seed in range(3):
            prepared = prepare(decode(TrialSpec, {**base, "seed": seed}))
            with tempfile.TemporaryDirectory() as folder:
                trained = train(prepared, Path(folder))
            layers = prepared.adapted.layers
            prepared.allocator.finish(trained.state, layers)
            looks = Looks(prepared.adapted, prepared.data.held_out["search"], prepared.task, 128, "bf16")
            for where, row in patterns.items():
                score = round(looks(RankPattern(row.pattern)).score, 6)
                file.write(json.dumps({"seed": seed, "place": json.loads(where), "score": score}) + "\n")
            cost = {"seed": seed, "train_seconds": round(trained.seconds, 1), "look_seconds": round(looks.seconds, 1)}
            file.write(json.dumps(cost) + "\n")
            print(cost, flush=True)


def page() -> str:
    """The report: every search is replayed on the table."""
    rows = table()
    lines = [
        "# Searches on the trainings of rank_grid", "",
        f"{len(rows)} trainings on SST-2: 27 patterns of ranks at each of two budgets, two learning rates, two seeds.",
        "`python tests/bench/search_trainings.py report` makes this page from [results.jsonl](results.jsonl) and",
        "[oneshot.jsonl](oneshot.jsonl); `rankopt blackbox reports/rank_grid/results.jsonl` replays one search.", "",
        *places(rows), *coordinates(rows), *replays(rows), *judged(rows), *oneshot(rows),
    ]  # fmt: skip
    return "\n".join([*lines, (OUT / "notes.md").read_text(encoding="utf-8")])


def places(rows: list[Row]) -> Iterator[str]:
    """Whether accuracy depends on where the ranks are: variance between patterns against that between seeds."""
    yield "## Does it matter where the ranks are?"
    yield ""
    yield "Accuracy on the report split, of the patterns of which no training collapsed (below 0.6). F compares the"
    yield "variance between patterns with that within them; p is small if the patterns differ."
    yield ""
    yield "| mean rank | lr | collapsed | patterns | uniform | mean | sd between patterns | sd of a training | F | p |"
    yield f"|{' ---: |' * 10}"
    for amount, lr in sorted({(budget(row), rate(row)) for row in rows}):
        chosen = [row for row in rows if budget(row) == amount and rate(row) == lr]
        whole = [row for group in by_place(chosen).values() if min(map(_report, group)) >= COLLAPSED for row in group]
        by_seed = {seed: fmean(_report(row) for row in whole if row.seed == seed) for seed in (0, 1)}
        groups = [[_report(row) - by_seed[row.seed] for row in group] for group in by_place(whole).values()]
        means, n = [fmean(group) for group in groups], len(groups)
        between = 2 * sum(mean**2 for mean in means) / (n - 1)
        within = sum((value - fmean(group)) ** 2 for group in groups for value in group) / (n - 1)
        uniform = fmean(_report(row) for row in chosen if is_uniform(row))
        cells = [
            f"{amount}", f"{lr:g}", f"{sum(_report(row) < COLLAPSED for row in chosen)} of {len(chosen)}", f"{n}",
            f"{uniform:.3f}", f"{fmean(map(_report, whole)):.3f}",
            f"{math.sqrt(max(0.0, (between - within) / 2)):.3f}", f"{math.sqrt(within):.3f}",
            f"{between / within:.2f}", f"{float(stats.f.sf(between / within, n - 1, n - 1)):.2g}",
        ]  # fmt: skip
        yield f"| {' | '.join(cells)} |"
    yield ""


def coordinates(rows: list[Row]) -> Iterator[str]:
    """Mean accuracies by each of the three numbers that describe a pattern."""
    yield "Means of the trainings that did not collapse, by the logit of a group of layers or the slope over depth:"
    yield ""
    yield "| mean rank | what is varied | -1.5 | 0 | 1.5 |"
    yield "| ---: | --- | ---: | ---: | ---: |"
    for amount in sorted({budget(row) for row in rows}):
        for name, field in COORDINATES.items():
            cells = []
            for value in (-1.5, 0.0, 1.5):
                own = [row for row in rows if budget(row) == amount and row.configuration.get(field, 0.0) == value]
                cells.append(f"{fmean(_report(row) for row in own if _report(row) >= COLLAPSED):.3f}")
            yield f"| {amount} | {name} | {' | '.join(cells)} |"
    yield ""


def replays(rows: list[Row]) -> Iterator[str]:
    """Regret and hypervolume over trainings, each with its distance from random search."""
    box = BlackBox(rows)
    for objective, names in SEARCHES.items():
        one = objective == "score"
        yield "## Accuracy alone" if one else "## Accuracy and parameters"
        yield ""
        yield (
            "Regret is the best mean accuracy of the table minus that of the configuration that a search found, on the "
            f"search split. Means over {SEEDS} replays with their standard errors."
            if one
            else f"Hypervolume as a share of the table's. Means over {SEEDS} replays with their standard errors."
        )
        yield ""
        shown = " | ".join(f"after {n}" for n in SHOWN)
        yield f"| search | {shown} | {'less' if one else 'more'} than random after {SHOWN[-1]} |"
        yield f"| --- |{' ---: |' * (len(SHOWN) + 1)}"
        found: dict[str, list[list[float]]] = {}
        for name in names:
            runs = _runs(box, name, OBJECTIVES[objective])
            found[name] = [[step.regret if one else step.front_share for step in run] for run in runs]
            gains = [(1 - 2 * one) * (b[-1] - a[-1]) for a, b in zip(found["random"], found[name], strict=True)]
            cells = [_mean([run[n - 1] for run in found[name]]) for n in SHOWN]
            yield f"| {name} | {' | '.join(cells)} | {'' if name == 'random' else _interval(gains)} |"
        yield ""


def judged(rows: list[Row]) -> Iterator[str]:
    """What a search finds in one seed's trainings, judged by the report split of the other seed's."""
    yield "## Is what was found better than uniform ranks?"
    yield ""
    yield "A search sees the search split of the trainings of one seed. What it finds with 40 trainings is judged by"
    yield "the accuracy on the report split of its training at the other seed, minus that of uniform ranks at the same"
    yield f"budget and their better learning rate. Means over {SEEDS} replays for each seed."
    yield ""
    yield "| search | found at seed 0, judged at seed 1 | found at seed 1, judged at seed 0 | replays with a gain |"
    yield "| --- | ---: | ---: | ---: |"
    for name in SEARCHES["score"]:
        cells, better = [], 0
        for seed in (0, 1):
            box = BlackBox([row for row in rows if row.seed == seed])
            other = {_key(row): row for row in rows if row.seed != seed}
            gains = []
            for run in _runs(box, name, OBJECTIVES["score"]):
                winner = box.trainings[run[-1].found][0]
                plain = max(
                    (row for row in rows if is_uniform(row) and row.seed == seed and budget(row) == budget(winner)),
                    key=lambda row: row.score,
                )
                gains.append(_report(other[_key(winner)]) - _report(other[_key(plain)]))
            cells.append(f"{fmean(gains):+.4f}")
            better += sum(gain > 0 for gain in gains)
        yield f"| {name} | {' | '.join(cells)} | {better} of {2 * SEEDS} |"
    yield ""


def oneshot(rows: list[Row]) -> Iterator[str]:
    """What a super-network's ranking of the patterns says about trainings."""
    lines = [json.loads(line) for line in (OUT / "oneshot.jsonl").read_text(encoding="utf-8").splitlines()]
    looks = [line for line in lines if "score" in line]
    costs = [line for line in lines if "train_seconds" in line]
    trained = {where: fmean(_report(row) for row in group) for where, group in by_place(rows).items()}
    yield "## One-shot search"
    yield ""
    training, looking = (fmean(cost[name] for cost in costs) for name in ("train_seconds", "look_seconds"))
    yield f"A super-network (`nested`, {STEPS} steps, lr {LR:g}) scores 27 patterns of a budget on the search split."
    yield f"Its training takes {training:.0f} s, scoring 54 patterns {looking:.0f} s. Trainings are those of the grid:"
    yield "means over seeds and learning rates on the report split."
    yield ""
    yield "| network | mean rank | rank correlation with trainings | best pattern of the network, minus uniform |"
    yield "| ---: | ---: | ---: | ---: |"
    for seed in sorted({line["seed"] for line in looks}):
        for amount in sorted({budget(row) for row in rows}):
            own = {
                json.dumps(line["place"]): line["score"]
                for line in looks
                if line["seed"] == seed and line["place"]["budget.mean_rank"] == amount
            }
            tau = stats.kendalltau(list(own.values()), [trained[where] for where in own]).statistic
            plain = next(place(row) for row in rows if is_uniform(row) and budget(row) == amount)
            best = max(own, key=own.__getitem__)
            yield f"| {seed} | {amount} | {tau:+.2f} | {trained[best] - trained[plain]:+.4f} |"
    yield ""


def by_place(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Place -> its trainings."""
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=place):
        groups.setdefault(place(row), []).append(row)
    return groups


def _runs(box: BlackBox, name: str, objectives: list[str]) -> list[list[Step]]:
    """The replays of a search."""
    searches = [replayed_search(Named(name=name), SHOWN[-1], seed, objectives) for seed in range(SEEDS)]
    return [replay(box, search, objectives) for search in searches]


def _key(row: Row) -> str:
    return json.dumps(row.configuration)


def _report(row: Row) -> float:
    assert row.report is not None
    return row.report


def _mean(values: list[float]) -> str:
    found = summarize(values)
    return f"{found.mean:.4f} ± {found.error:.4f}"


def _interval(values: list[float]) -> str:
    found = summarize(values)
    return f"{found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


if __name__ == "__main__":
    if sys.argv[1] == "oneshot":
        make_networks([part for part in sys.argv[2:] if part != "--set"])
    else:
        (OUT / "searches.md").write_text(page(), encoding="utf-8")
