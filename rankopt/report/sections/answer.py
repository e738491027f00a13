"""The answer in plain sentences, computed from the results."""

from __future__ import annotations

from typing import Any

from rankopt.analysis.comparison import CONDITION
from rankopt.analysis.frame import CONTROL
from rankopt.report.base import Block, Section
from rankopt.report.evidence import Evidence, at
from rankopt.report.formatting import joined, plural, with_error

SENTENCES = 8
"""With more settings and budgets than this, every setting answers at its smallest budget only."""
VERDICTS = {
    "one seed": "one shared seed cannot tell",
    "no spread over seeds": "the same difference at every seed, so no test",
    "not seen": "no difference that this many seeds could have seen",
    "not significant": "not told apart from chance after Holm's correction",
}


class Answer(Section):
    """What do the results say? One sentence per setting and budget, about the best contender on the search split."""

    def block(self, evidence: Evidence) -> Block:
        told = _sentences(evidence) if evidence.study.listed else tuple(_found(evidence, s) for s in evidence.settings)
        return Block("Answer", text=_text(evidence), bullets=told, warnings=_warnings(evidence))


def _warnings(evidence: Evidence) -> tuple[str, ...]:
    found = []
    if not evidence.settings:
        failed = plural(len(evidence.results), "trial")
        found.append(f"No trial is complete: {failed} failed. The reasons are below; there is no score to show.")
    if "paper" in set(evidence.points["protocol"]):
        found.append(
            'Protocol "paper": models were selected on the same split that is reported, as published numbers were. '
            "These scores are optimistic."
        )
    mini = sorted({task for task in evidence.points["task"] if str(task).startswith("mini")})
    if mini:
        found.append(f"Scores on generated mini tasks, not GLUE: {joined(mini)}.")
    return tuple(found)


def _text(evidence: Evidence) -> tuple[str, ...]:
    rows = evidence.comparisons
    tested = rows[rows["p_holm"].notna()]
    family: tuple[str, ...] = ()
    if len(tested):
        better, worse = (int((tested["verdict"] == word).sum()) for word in ("better", "worse"))
        family = (
            f"Against {CONTROL} at the same task, budget and seeds, {better:,} of {plural(len(tested), 'comparison')} "
            f"{'is' if better == 1 else 'are'} better and {worse:,} {'is' if worse == 1 else 'are'} worse "
            f"(paired t-test, two-sided 5%, Holm's correction over all of them).",
        )
    about = (
        "Scores are means over seeds ± one standard error"
        if _repeated(evidence)
        else "One seed each: no error is known"
    )
    if evidence.study.listed and evidence.chosen.groupby(CONDITION, dropna=False).size().max() > 2:
        about += "; the contender named is the one with the best score on the search split"
    return (*family, f"{about}.") if evidence.settings else ()


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
    """What a search found: the best, and where parameters count too, the cheap end of the front."""
    tried = plural(int((evidence.averages["setting"] == setting).sum()), "configuration")
    front, most = evidence.front(setting), evidence.study.constraints.get("parameters")
    if front.empty:
        return f"On {setting}, none of {tried} keeps the constraint of at most {most:,} parameters."
    within = f" within {most:,} parameters" if most is not None else ""
    text = f"On {setting}, the best of {tried}{within} on the search split is {_scored(front.iloc[-1])}"
    if "parameters" in evidence.study.objectives:
        text += (
            "; it is the whole Pareto front"
            if len(front) == 1
            else f"; the Pareto front has {len(front)}, the cheapest of which is {_scored(front.iloc[0])}"
        )
    return f"{text}."


def _sentence(evidence: Evidence, setting: str, budget: float) -> str:
    rows = at(evidence.chosen, setting, budget)
    contenders = rows[rows["name"] != CONTROL].sort_values(["search", "allocator"], ascending=[False, True])
    control = rows[rows["name"] == CONTROL]
    place = f"On {setting} at mean rank {budget:g}" if budget == budget else f"On {setting}"
    if contenders.empty:
        return f"{place}, {_scored(control.iloc[0])}; nothing to compare it with."
    best = contenders.iloc[0]
    tried = at(evidence.averages, setting, budget)
    tried = tried[tried["allocator"] == best["allocator"]]
    subject = _scored(best)
    if len(tried) > 1:
        subject += f", the best of {len(tried):,} configurations on the search split"
    if control.empty or budget != budget:
        return f"{place}, {subject}; no {CONTROL} trial at the same budget to compare it with."
    found = at(evidence.comparisons, setting, budget)
    result = found[found["allocator"] == best["allocator"]].iloc[0]
    return f"{place}, {subject} against {_scored(control.iloc[0])}: {_verdict(result)}."


def _repeated(evidence: Evidence) -> bool:
    return bool(evidence.chosen["n"].max() > 1)


def _scored(row: Any) -> str:
    score = with_error(row["score"], row["error"])
    return f"{row['allocator']} {score} ({row['kept']:,.0f} parameters, {plural(int(row['n']), 'seed')})"


def _verdict(row: Any) -> str:
    numbers = f"difference {row['difference']:+.3f}"
    if row["p_holm"] == row["p_holm"]:
        numbers += f", p {row['p_holm']:.2g} after Holm, detectable {row['detectable']:.3f}"
    return f"{VERDICTS.get(row['verdict'], row['verdict'])} ({numbers})"
