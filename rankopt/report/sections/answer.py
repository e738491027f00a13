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
    "one seed": "one shared seed allows no test",
    "same difference at every seed": "the same difference at every seed, which allows no test",
    "below detectable": "no difference of a size that this many seeds could detect",
    "not significant": "not significant after Holm's correction",
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
        else "There is one seed each, so standard errors are unknown."
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
            else f"; the Pareto front has {len(front)}, the cheapest of which is {_scored(evidence, front.iloc[0])}"
        )
    return f"{text}."


def _sentence(evidence: Evidence, setting: str, budget: float) -> str:
    rows = at(evidence.chosen, setting, budget)
    contenders = rows[rows["name"] != CONTROL].sort_values(["search", "allocator"], ascending=[False, True])
    control = rows[rows["name"] == CONTROL]
    where = f"On {setting} at mean rank {budget:g}" if budget == budget else f"On {setting}"
    if contenders.empty:
        return f"{where}, {_subject(evidence, control.iloc[0])}; there is no other allocator to compare with."
    best = contenders.iloc[0]
    subject = _subject(evidence, best)
    if control.empty or budget != budget:
        return f"{where}, {subject}; there is no {CONTROL} trial at the same budget to compare with."
    found = at(evidence.comparisons, setting, budget)
    result = found[found["allocator"] == best["allocator"]].iloc[0]
    return f"{where}, {subject} against {_subject(evidence, control.iloc[0])}: {_verdict(result)}."


def _subject(evidence: Evidence, row: Any) -> str:
    """An allocator's best configuration, and of how many it is the best."""
    tried = at(evidence.averages, row["setting"], row["budget"])
    tried = tried[tried["allocator"] == row["allocator"]]
    best_of = f", the best of {len(tried):,} configurations on the search split," if len(tried) > 1 else ""
    return f"{_scored(evidence, row)}{best_of}"


def _scored(evidence: Evidence, row: Any) -> str:
    words = evidence.words(row)
    name = f"{row['allocator']} with {words}" if words else row["allocator"]
    score = with_error(row["score"], row["error"])
    return f"{name}: {score} ({row['kept']:,.0f} parameters, {plural(int(row['n']), 'seed')})"


def _repeated(evidence: Evidence) -> bool:
    return bool(evidence.chosen["n"].max() > 1)


def _verdict(row: Any) -> str:
    numbers = f"paired difference {row['difference']:+.3f}"
    if row["p_holm"] == row["p_holm"]:
        numbers += f", p = {row['p_holm']:.2g} after Holm's correction, smallest detectable {row['detectable']:.3f}"
    return f"{VERDICTS.get(row['verdict'], row['verdict'])} ({numbers})"
