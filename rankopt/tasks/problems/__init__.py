"""What can be predicted, by name: a plain table. A new problem is a file here and a row."""

from __future__ import annotations

from rankopt.tasks.problems.base import Problem
from rankopt.tasks.problems.classification import Classification
from rankopt.tasks.problems.generation import Generation
from rankopt.tasks.problems.language_modelling import LanguageModelling
from rankopt.tasks.problems.regression import Regression

PROBLEMS: dict[str, type[Problem]] = {
    "classification": Classification,
    "regression": Regression,
    "language-modelling": LanguageModelling,
    "generation": Generation,
}

__all__ = ["PROBLEMS", "Classification", "Generation", "LanguageModelling", "Problem", "Regression"]
