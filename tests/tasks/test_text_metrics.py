"""The metrics of generated texts are the libraries' own, with any number of references."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from rankopt.tasks.text_metrics import answer_of, bleu, exact_match, rouge

TEXTS = ["The Vaults is a cheap pub near the river .", "Cotto serves English food .", "There is a place in the city"]
REFERENCES = [
    ["The Vaults is a pub near the river.", "Near the river there is a cheap pub called The Vaults ."],
    ["Cotto serves English food ."],
    ["There is a place in the city centre", "A place is there", "In the city there is a place"],
]


def test_bleu_is_that_of_the_command_line(tmp_path: Path) -> None:
    """With as many references for each text as the command line can read."""
    references = [[*own, *own, *own][:3] for own in REFERENCES]
    files = [tmp_path / f"reference-{index}" for index in range(3)]
    for index, file in enumerate(files):
        file.write_text("\n".join(own[index] for own in references) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", *map(str, files), "-b", "-w", "6"],
        input="\n".join(TEXTS) + "\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert bleu(TEXTS, references) == pytest.approx(float(done.stdout), abs=1e-6)
    assert bleu(TEXTS, REFERENCES) == pytest.approx(bleu(TEXTS, references)), "repeated references change nothing"


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_the_librarys(kind: str) -> None:
    scorer = RougeScorer([kind])
    best = [
        max(scorer.score(one, text)[kind].fmeasure for one in own) for text, own in zip(TEXTS, REFERENCES, strict=True)
    ]
    assert rouge(kind, TEXTS, REFERENCES) == pytest.approx(np.mean(best))


def test_exact_match() -> None:
    assert exact_match([" yes\n", "no", ""], [["yes"], ["yes"], [""]]) == pytest.approx(2 / 3)


def test_answers() -> None:
    """The last one counts, with or without a group in the pattern; commas are left out."""
    assert answer_of(r"#### (-?[\d,]+)", "#### 1 then #### -1,200") == "-1200"
    assert answer_of(r"\d+", "a 12 b 34") == "34"
    assert answer_of(r"\d+", "none") is None
    assert exact_match([None, "3"], [["none"], ["4", "3"]]) == 0.5, "a text without an answer is wrong"
