"""Several studies as one: the first one's labels stay, and those of the others name their study."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from rankopt.analysis.search import SearchRecord
from rankopt.core.result import TrialResult
from rankopt.report.evidence import Evidence


def joint_evidence(parts: Sequence[Evidence]) -> Evidence:
    """The evidence of several studies. The control is that of the first study.

    A trial that several studies have counts once, for the first of them.

    Args:
        parts: evidence of each study.
    Raises:
        ValueError: fewer than two studies, or two of one name.
    """
    names = [part.study.name for part in parts]
    if len(names) < 2:
        raise ValueError(f"compare needs at least two studies, got {len(names)}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"studies must have different names, got {twice[0]!r} twice; "
            "rankopt report --from FILE --from FILE merges results files of one study"
        )
    # a search's page differs from a grid's, so one search makes the page that of searches
    template = next((part.study for part in parts if not part.study.listed), parts[0].study)
    constraints = parts[0].study.constraints
    same = all(part.study.constraints == constraints for part in parts)
    study = template.model_copy(
        update={"name": " and ".join(names), "description": "", "constraints": constraints if same else {}}
    )
    results: dict[str, TrialResult] = {}
    for result in chain(*(part.results for part in parts)):
        results.setdefault(result.key, result)

    def predictions(key: str) -> bytes | None:
        return next((data for part in parts if (data := part.search.predictions(key)) is not None), None)

    return Evidence(
        study=study,
        results=tuple(results.values()),
        counts={},
        search=SearchRecord(
            unreadable=[line for part in parts for line in part.search.unreadable], predictions=predictions
        ),
        parts=tuple(parts),
    )
