"""The sections of a report, and of a page about several studies, in reading order."""

from __future__ import annotations

from rankopt.report.base import Section
from rankopt.report.sections.answer import Answer
from rankopt.report.sections.comparison import Comparison
from rankopt.report.sections.configurations import Configurations
from rankopt.report.sections.cost import Cost
from rankopt.report.sections.curves import CurveNumbers
from rankopt.report.sections.dimension_importance import DimensionImportance
from rankopt.report.sections.failures import Failures
from rankopt.report.sections.layer_shares import LayerShares
from rankopt.report.sections.oneshot import OneShot
from rankopt.report.sections.progress import Progress
from rankopt.report.sections.provenance import Provenance
from rankopt.report.sections.ranks import Ranks
from rankopt.report.sections.retrained import Retrained
from rankopt.report.sections.schedule import BudgetOverTime
from rankopt.report.sections.scores import Scores
from rankopt.report.sections.searches import Searches
from rankopt.report.sections.spectra import Spectra
from rankopt.report.sections.studies import Studies
from rankopt.report.sections.tradeoff import TradeOff
from rankopt.report.sections.tuning import Tuning

SECTIONS: dict[str, Section] = {
    "answer": Answer(),
    "trade-off": TradeOff(),
    "tuning": Tuning(),
    "comparison": Comparison(),
    "retrained": Retrained(),
    "curves": CurveNumbers(),
    "ranks": Ranks(),
    "budget": BudgetOverTime(),
    "spectra": Spectra(),
    "one-shot": OneShot(),
    "search": Progress(),
    "configurations": Configurations(),
    "dimension-importance": DimensionImportance(),
    "layer-shares": LayerShares(),
    "scores": Scores(),
    "cost": Cost(),
    "failures": Failures(),
    "provenance": Provenance(),
}

OF_SEVERAL: dict[str, Section] = {
    "answer": Studies(),
    "trade-off": TradeOff(),
    "comparison": Comparison(),
    "curves": CurveNumbers(),
    "searches": Searches(),
    "scores": Scores(),
    "cost": Cost(),
    "failures": Failures(),
}
