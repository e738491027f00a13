"""The table of tasks. A new task is a row in `glue.py`, or a file with a row here. `task_of` finds a study's task."""

from __future__ import annotations

from rankopt.core.task_spec import TaskSpec
from rankopt.tasks.base import Task
from rankopt.tasks.glue import GLUE
from rankopt.tasks.mini import MINI
from rankopt.tasks.mini_text import MINI_TEXT
from rankopt.tasks.own import own_task

TASKS: dict[str, Task] = {**GLUE, **MINI, **MINI_TEXT}


def task_of(spec: TaskSpec) -> Task:
    """The task that a spec names, or describes by its own data.

    Raises:
        ValueError: the user's own data cannot be read; one line that says what is wrong and where.
    """
    return TASKS[spec.name] if spec.data is None else own_task(spec)


__all__ = ["GLUE", "MINI", "TASKS", "Task", "task_of"]
