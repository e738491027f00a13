"""The tasks: a plain table. A new task is a row in `glue.py`, or a file of its own and a row here."""

from __future__ import annotations

from rankopt.tasks.base import Task
from rankopt.tasks.glue import GLUE

TASKS: dict[str, Task] = {**GLUE}

__all__ = ["GLUE", "TASKS", "Task"]
