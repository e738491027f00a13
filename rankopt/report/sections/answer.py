"""The answer in sentences, computed from the results."""

from __future__ import annotations

from typing import Any

from rankopt.analysis.comparison import CONDITION
from rankopt.analysis.frame import CONTROL
from rankopt.report.base import Block, Section
from rankopt.report.evidence import Evidence, at
from rankopt.report.formatting import joined, plural, with_error

SENTENCES = 8
"""With more pairs of setting and budget than this, only the smallest budget of each setting gets a sentence."""

VERDICTS = {
    "no shared seed": "no seed is shared, so it cannot be tested",
    "one seed": "one shared seed allows no test",
    "equal at every seed": "the scores are equal at every seed",
    "same difference at every seed": "the difference is the same at every seed, so no test is possible",
    "better": "significantly better",
    "worse": "significantly worse",
    "below detectable": "too small for this many seeds to detect",
    "not significant": "not significant",
}


class Answer(Section):
    """What do the results show? One sentence per setting and budget, about the allocator with the best search score."""

    def block(self, evidence: Evidence) -> Block:
        answer = (
            _sentences(evidence) if evidence.study.listed else tuple(_found(evidence, s) for s in evidence.settings)
        )
        return Block("Answer", text=_text(evidence), bullets=answer, warnings=_warnings(evidence))


def _warnings(evidence: Evidence) -> tuple[str, ...]:
    found = []
    if not evidence.settings:
        failed = plural(len(evidence.results), "trial")
        found.append(f"No trial is complete, so there are no scores: {failed} failed. The reasons are listed below.")
    if "paper" in set(evidence.points["protocol"]):
        found.append(
            'Protocol "paper": models were selected on the same split that is reported, as in published results. '
            "These scores are optimistic."
        )
    limited = sorted({spec.task.report_examples for spec in evidence.specs if spec.task.report_examples})
    if limited:
        sizes = joined([f"{size:,}" for size in limited])
        found.append(f"Report scores use {sizes} examples of each official validation set (task.report_examples).")
    mini = sorted({task for task in evidence.points["task"] if str(task).startswith("mini")})
    if mini:
        found.append(f"Scores on generated mini tasks, not GLUE: {joined(mini)}.")
    return tuple(found)


def _text(evidence: Evidence) -> tuple[str, ...]:
    if not evidence.settings:
        return ()
    rows = evidence.comparisons
    tested = rows[rows["p_holm"].notna()]
    family: tuple[str, ...] = ()
    if len(tested):
        better, worse = (int((tested["verdict"] == word).sum()) for word in ("better", "worse"))
        family = (
            f"Compared with {CONTROL} at equal task, budget and seeds, {better:,} of "
            f"{plural(len(tested), 'comparison')} {'is' if better == 1 else 'are'} significantly better and {worse:,} "
            f"{'is' if worse == 1 else 'are'} significantly worse (paired t-test, two-sided, 5% family-wise error rate "
            "by Holm's correction).",
        )
    metrics = {setting: evidence.metric(setting) for setting in evidence.settings}
    names = set(metrics.values())
    what = names.pop() if len(names) == 1 else "; ".join(f"{metric} ({setting})" for setting, metric in metrics.items())
    spread = (
        "Values are means over seeds ± one standard error."
        if _repeated(evidence)
        else "Each configuration has one seed, so standard errors are unknown."
    )
    about = f"Scores: {what}. {spread}"
    if evidence.study.listed and evidence.chosen.groupby(CONDITION, dropna=False).size().max() > 2:
        about += " Each sentence names the allocator with the best search score."
    return (*family, about)


def _sentences(evidence: Evidence) -> tuple[str, ...]:
    chosen = evidence.chosen
    cases = [
        (setting, float(budget))
        for setting in evidence.settings
        for budget in sorted(chosen.loc[chosen["setting"] == setting, "budget"].dropna().unique())
    ]
    if len(cases) > SENTENCES:
        cases = [case for case in cases if case[1] == min(budget for setting, budget in cases if setting == case[0])]
    budgeted = {setting for setting, _ in cases}
    free = [(setting, float("nan")) for setting in evidence.settings if setting not in budgeted]
    return tuple(_sentence(evidence, setting, budget) for setting, budget in sorted(cases + free, key=lambda c: c[0]))


def _found(evidence: Evidence, setting: str) -> str:
    """What a search found: its best configuration, and with two objectives the cheap end of the Pareto front."""
    tried = plural(int((evidence.averages["setting"] == setting).sum()), "configuration")
    front, most = evidence.front(setting), evidence.study.constraints.get("parameters")
    if front.empty:
        return f"On {setting}, none of {tried} meets the constraint of at most {most:,} parameters."
    within = f" within {most:,} parameters" if most is not None else ""
    text = f"On {setting}, the best of {tried}{within} on the search split is {_scored(evidence, front.iloc[-1])}"
    if "parameters" in evidence.study.objectives:
        text += (
            "; it is the whole Pareto front"
            if len(front) == 1
            else f"; the Pareto front has {len(front)} configurations, the cheapest of which is "
            f"{_scored(evidence, front.iloc[0])}"
        )
    return f"{text}."


def _sentence(evidence: Evidence, setting: str, budget: float) -> str:
    rows = at(evidence.chosen, setting, budget)
    contenders = rows[rows["name"] != CONTROL].sort_values(["search", "allocator"], ascending=[False, True])
    control = rows[rows["name"] == CONTROL]
    where = f"On {setting} at mean rank {budget:g}" if budget == budget else f"On {setting}"
    if contenders.empty:
        row = control.iloc[0]
        return (
            f"{where}, {_scored(evidence, row)}; there is no other allocator to compare with.{_best_of(evidence, row)}"
        )
    best = contenders.iloc[0]
    if control.empty or budget != budget:
        return (
            f"{where}, {_scored(evidence, best)}; there is no {CONTROL} trial at the same budget to compare with."
            f"{_best_of(evidence, best)}"
        )
    found = at(evidence.comparisons, setting, budget)
    result = found[found["allocator"] == best["allocator"]].iloc[0]
    return (
        f"{where}, {_scored(evidence, best)} against {_scored(evidence, control.iloc[0])}. {_verdict(result)}"
        f"{_best_of(evidence, best)}{_best_of(evidence, control.iloc[0])}"
    )


def _best_of(evidence: Evidence, row: Any) -> str:
    """A sentence on how many configurations of the allocator were compared, if several were."""
    tried = at(evidence.averages, row["setting"], row["budget"])
    tried = tried[tried["allocator"] == row["allocator"]]
    if len(tried) < 2:
        return ""
    return f" This configuration of {row['allocator']} is the best of {len(tried):,} on the search split."


def _scored(evidence: Evidence, row: Any) -> str:
    label, words = str(row["allocator"]), evidence.words(row)
    if words:
        label = f"{label[:-1]}, {words})" if label.endswith(")") else f"{label} ({words})"
    score = with_error(row["score"], row["error"])
    return f"{label} {score} ({row['kept']:,.0f} parameters, {plural(int(row['n']), 'seed')})"


def _repeated(evidence: Evidence) -> bool:
    return bool(evidence.chosen["n"].max() > 1)


def _verdict(row: Any) -> str:
    """A sentence on the paired difference; empty parts are left out where no test was possible."""
    verdict = VERDICTS.get(row["verdict"], row["verdict"])
    if row["n"] == 0:
        return f"Paired difference: {verdict}."
    test = ""
    if row["p_holm"] == row["p_holm"]:
        test = f" (p = {row['p_holm']:.2g} after Holm's correction; smallest detectable {row['detectable']:.3f})"
    return f"Paired difference {row['difference']:+.3f}: {verdict}{test}."
