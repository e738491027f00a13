"""The answer in sentences, computed from the results."""

from __future__ import annotations

from typing import Any

from rankopt.analysis.frame import CONTROL
from rankopt.core.path import shortest
from rankopt.core.text import plural
from rankopt.report.base import Block, Section, Table
from rankopt.report.baseline import none_above, some_below
from rankopt.report.conclusion import Sentence, conclusion, remarks
from rankopt.report.evidence import Evidence, at
from rankopt.report.formatting import joined, spans, with_error
from rankopt.report.question import asked
from rankopt.report.sections.failures import incomplete

SENTENCES = 8
"""With more pairs of setting and budget than this, only the smallest budget of each setting gets a sentence."""

COLUMNS = {
    "scope": "task", "allocator": "allocator", "difference": f"difference to {CONTROL}", "interval": "interval",
    "p_holm": "p (Holm)", "verdict": "verdict", "n": "seeds", "over_both": "over seeds and examples",
}  # fmt: skip
FORMATS = {f"difference to {CONTROL}": "+z.3f", "p (Holm)": ".2g"}


class Answer(Section):
    """What do the results show? Best and worst allocator of a comparison, or the best configurations."""

    def block(self, evidence: Evidence) -> Block:
        warnings = _warnings(evidence)
        if not evidence.settings:
            return Block("Answer", warnings=warnings)
        warnings = (*warnings, *some_below(evidence))
        compared = _compared(evidence)
        facts = [("Asked", asked(evidence) if compared else _asked(evidence))]
        facts += [(sentence.label, sentence.text) for sentence in answer(evidence)]
        facts.append(("Scores", _scores(evidence)))
        if not compared:
            return Block("Answer", facts=tuple(facts), warnings=warnings)
        warnings = (*warnings, *remarks(evidence))
        return Block("Answer", facts=tuple(facts), warnings=warnings, tables=(_table(evidence),))


def answer(evidence: Evidence) -> tuple[Sentence, ...]:
    """Whether the models learned; then a comparison's conclusion, a search's best, or the best of every budget.

    Nothing is recommended where no model learned.
    """
    if not evidence.study.listed:
        found = tuple(_found(evidence, setting) for setting in evidence.settings)
    else:
        found = conclusion(evidence) if _compared(evidence) else _sentences(evidence)
    unlearned = none_above(evidence)
    if len(unlearned) == len(evidence.settings):
        found = tuple(sentence for sentence in found if sentence.label != "What to use")
    return (*unlearned, *found)


def _compared(evidence: Evidence) -> bool:
    return evidence.study.listed and len(evidence.comparison.arms) > 0


def _table(evidence: Evidence) -> Table:
    """The verdicts for the whole study, the best allocator first."""
    rows = evidence.comparison.arms.sort_values(["scope", "difference", "allocator"], ascending=[True, False, True])
    known = [text or "n/a" for text in spans(rows)]
    frame = rows.assign(interval=known, over_both=spans(rows, "both"))[list(COLUMNS)].rename(columns=COLUMNS)
    empty = [column for column in ("task", COLUMNS["over_both"]) if not frame[column].any()]
    return Table(frame.drop(columns=empty), FORMATS, "Verdicts")


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
    if evidence.settings and evidence.missing:
        found.append(f"Incomplete: {incomplete(evidence)}")
    limited = sorted({spec.task.report_examples for spec in evidence.specs if spec.task.report_examples})
    if limited:
        sizes = joined([f"{size:,}" for size in limited])
        found.append(f"Report scores use {sizes} examples of each report split (task.report_examples).")
    shares = sorted(
        {(s.task.name, s.task.report_share) for s in evidence.specs if s.task.data and not s.task.data.report}
    )
    for name, share in shares:
        repeated = _repeated(evidence, name)
        found.append(
            f"{name} has no report split of its own: report scores use a stratified {share:.0%} of its training rows"
            f"{f'. {repeated}' if repeated else ', which no training and no choice used'}."
        )
    mini = sorted({task for task in evidence.points["task"] if str(task).startswith("mini")})
    if mini:
        found.append(f"Scores on generated mini tasks, not GLUE: {joined(mini)}.")
    return tuple(found)


def _repeated(evidence: Evidence, task: str) -> str:
    """The note on report rows of a task that have the texts of training rows; empty if there are none."""
    told = f" report rows of {task} have the texts of a training row"
    return max((note for result in evidence.results for note in result.notes if told in note), key=len, default="")


def _asked(evidence: Evidence) -> str:
    """What a search or a grid without a control asks."""
    study, specs = evidence.study, evidence.specs
    models = joined(sorted({spec.model_label for spec in specs}))
    where = f"{joined(sorted({spec.task.name for spec in specs}))} with the model {models}"
    if study.listed:
        return f"Which configuration has the best score on {where}?"
    varied = shortest([path for path in study.varied_paths if path != "seed"])
    over = f" over {joined(varied)}" if varied else ""
    return f"Which configuration has the best score on {where}? The search {study.search.name} looked for it{over}."


def _scores(evidence: Evidence) -> str:
    """Which scores are shown, and what their errors are."""
    metrics = {setting: evidence.metric(setting) for setting in evidence.settings}
    names = set(metrics.values())
    what = names.pop() if len(names) == 1 else "; ".join(f"{metric} ({setting})" for setting, metric in metrics.items())
    spread = (
        "Values are means over seeds ± one standard error."
        if evidence.chosen["n"].max() > 1
        else "Each configuration has one seed, so standard errors are unknown."
    )
    if (evidence.points["sign"] < 0).any():
        spread += " Differences in tables are positive where a method is better."
    return f"{what[0].upper()}{what[1:]}. {spread}"


def _sentences(evidence: Evidence) -> tuple[Sentence, ...]:
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


def _found(evidence: Evidence, setting: str) -> Sentence:
    """What a search found: its best configuration, and with two objectives the cheap end of the Pareto front."""
    tried = plural(int((evidence.averages["setting"] == setting).sum()), "configuration")
    front, most = evidence.front(setting), evidence.study.constraints.get("parameters")
    if front.empty:
        text = f"On {setting}, none of {tried} meets the constraint of at most {most:,} parameters."
        return Sentence(text, text)
    within = f" within {most:,} parameters" if most is not None else ""
    best = _scored(evidence, front.iloc[-1])
    text = f"On {setting}, the best of {tried}{within} on the search split is {best}"
    if "parameters" in evidence.study.objectives:
        text += (
            "; it is the whole Pareto front"
            if len(front) == 1
            else f"; the Pareto front has {len(front)} configurations, the cheapest of which is "
            f"{_scored(evidence, front.iloc[0])}"
        )
    return Sentence(f"{text}.", f"{setting}, best of {tried}{within}: {best}.")


def _sentence(evidence: Evidence, setting: str, budget: float) -> Sentence:
    """The best allocator by search score, where no pair can be compared."""
    rows = at(evidence.chosen, setting, budget).sort_values(["gain", "allocator"], ascending=[False, True])
    where = f"On {setting} at mean rank {budget:g}" if budget == budget else f"On {setting}"
    others = f"there is no {CONTROL} trial at the same budget to compare with"
    if set(rows["name"]) == {CONTROL}:
        others = f"no other allocator {'is complete yet' if evidence.missing else 'was run'}"
    best = _scored(evidence, rows.iloc[0])
    return Sentence(f"{where}, {best}; {others}.{_best_of(evidence, rows.iloc[0])}", f"{where}: {best}.")


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
