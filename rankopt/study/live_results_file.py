"""Keep a study's results file up to date while the study runs."""

from __future__ import annotations

import time
from pathlib import Path

from rankopt.core.errors import first_line
from rankopt.study.database import is_storage_error
from rankopt.study.results_transfer import record_results, resume_from
from rankopt.study.storage import StudyStore

PAUSE = 20.0
"""After a write, wait this many times its duration: writing a large file takes at most a twentieth of the time."""


class ResultsRecorder:
    """Writes the results file of an open study, first when it is created.

    Args:
        store: the study; results that the file has and the study lacks are added to it.
        path: the file; None for no file.
    Raises:
        ValueError: replacing the file would lose results.
        OSError: it cannot be written.
    """

    def __init__(self, store: StudyStore, path: Path | None) -> None:
        self.store, self.path = store, path
        self._due = 0.0
        if path is not None:
            resume_from(store, path)
            self._write(path)

    def __call__(self, *, last: bool = False) -> str:
        """Write the file, unless it was written a moment ago. A failure does not stop the study.

        Args:
            last: write it in any case.
        Returns:
            What failed, or "".
        """
        if self.path is None or (time.monotonic() < self._due and not last):
            return ""
        try:
            self._write(self.path)
        except Exception as error:
            if not isinstance(error, OSError) and not is_storage_error(error):
                raise
            return f"{self.path} could not be written ({first_line(error)}); no result is lost: run again to write it"
        return ""

    def _write(self, path: Path) -> None:
        began = time.monotonic()
        record_results(self.store, path)
        self._due = time.monotonic() + PAUSE * (time.monotonic() - began)
