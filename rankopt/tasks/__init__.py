"""The table of tasks. A new task is a row in `glue.py`, or a file with a row here."""

from __future__ import annotations

from rankopt.tasks.base import Task
from rankopt.tasks.glue import GLUE
from rankopt.tasks.mini import MINI

TASKS: dict[str, Task] = {**GLUE, **MINI}

__all__ = ["GLUE", "MINI", "TASKS", "Task"]
