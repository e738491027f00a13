"""What can be predicted, by name: a plain table. A new problem is a file here and a row."""

from __future__ import annotations

from rankopt.tasks.problems.base import Problem
from rankopt.tasks.problems.classification import Classification
from rankopt.tasks.problems.regression import Regression

PROBLEMS: dict[str, type[Problem]] = {"classification": Classification, "regression": Regression}

__all__ = ["PROBLEMS", "Classification", "Problem", "Regression"]
