"""The origin of the results."""

from __future__ import annotations

import json
from collections import Counter

import pandas as pd

from rankopt.core.local_files import without_folders
from rankopt.core.text import plural
from rankopt.report.base import Block, Section, Table
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import joined


class Provenance(Section):
    """Which code, libraries, data, devices, seeds and protocol gave these results?"""

    def block(self, evidence: Evidence) -> Block:
        specs = evidence.specs
        protocols = sorted({spec.task.protocol for spec in specs})
        rows = [
            ("study", evidence.study.name),
            ("results", plural(len(evidence.results), "trial")),
            ("tasks", joined(sorted({spec.task.name for spec in specs}))),
            ("models", joined(sorted({spec.model_label for spec in specs}))),
            ("seeds", joined([str(seed) for seed in sorted({spec.seed for spec in specs})])),
            ("protocol", joined(protocols)),
        ]
        found: dict[str, Counter[str]] = {}
        for result in evidence.results:
            for name, value in result.environment.items():
                found.setdefault(name, Counter())[value] += 1
        rows += [(name, _values(values)) for name, values in sorted(found.items())]
        warnings = []
        if "paper" in protocols:
            warnings.append('Protocol "paper": models were selected and reported on the same split.')
        if len(found.get("revision", {})) > 1:
            warnings.append("The results come from more than one revision of the code; the table lists them.")
        return Block(
            "Provenance",
            warnings=tuple(warnings),
            tables=(Table(pd.DataFrame(rows, columns=["item", "value"])),),
            listing=json.dumps(
                without_folders(evidence.study.model_dump(mode="json", by_alias=True, exclude_defaults=True)),
                indent=2,
                ensure_ascii=False,
            ),
        )


def _values(values: Counter[str]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{value} ({plural(number, 'trial')})" for value, number in sorted(values.items()))
