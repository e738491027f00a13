"""The searches by registered name."""

from __future__ import annotations

from rankopt.core.spec import decode
from rankopt.core.study_spec import StudySpec
from rankopt.search.base import Search
from rankopt.search.evolution import Evolution
from rankopt.search.grid import Grid
from rankopt.search.oneshot import OneShot
from rankopt.search.reinforce import Reinforce
from rankopt.search.samplers import CMAES, GP, NSGA2, NSGA3, QMC, TPE, Random

SEARCHES: dict[str, type[Search]] = {
    "grid": Grid,
    "random": Random,
    "qmc": QMC,
    "tpe": TPE,
    "gp": GP,
    "cmaes": CMAES,
    "nsga2": NSGA2,
    "nsga3": NSGA3,
    "evolution": Evolution,
    "reinforce": Reinforce,
    "oneshot": OneShot,
}


def build_search(study: StudySpec) -> Search:
    """The search of a study, with validated options."""
    return decode(SEARCHES[study.search.name], study.search.options)
