"""The table of tasks. A new task is a row in `glue.py`, or a file with a row here."""

from __future__ import annotations

from rankopt.tasks.base import Task
from rankopt.tasks.glue import GLUE
from rankopt.tasks.mini import MINI
from rankopt.tasks.mini_text import MINI_TEXT

TASKS: dict[str, Task] = {**GLUE, **MINI, **MINI_TEXT}

__all__ = ["GLUE", "MINI", "TASKS", "Task"]
