"""Generated texts are scored once per prompt, against all references of the prompt."""

from __future__ import annotations

import numpy as np
import pytest

from rankopt.tasks.metrics import METRICS
from rankopt.tasks.problems.generation import Generation
from rankopt.tasks.text_metrics import bleu

KEPT = {
    "loss": np.array([2.0, 2.0, 2.0]),
    "tokens": np.array([2, 2, 2]),
    "correct": np.array([1, 1, 1]),
    "text": np.array(["a b c d", "a b c d", "x y"]),
    "prompt": np.array([0, 0, 1]),
}
LABELS = np.array(["a b c e", "a b c d", "x z"], dtype=object)


def test_references_are_grouped_by_prompt() -> None:
    scores = Generation().scores(["bleu", "exact_match", "perplexity"], KEPT, LABELS)
    assert scores["bleu"] == pytest.approx(bleu(["a b c d", "x y"], [["a b c e", "a b c d"], ["x z"]]))
    assert scores["exact_match"] == 0.5
    assert scores["perplexity"] == pytest.approx(np.e)


def test_only_metrics_of_texts_need_decoding() -> None:
    problem = Generation(answer="x (.)")
    assert not problem.generates(["perplexity", "token_accuracy"])
    assert all(problem.generates([name]) for name, metric in METRICS.items() if metric.problem == "generation")


def test_answers_are_compared_and_texts_without_one_are_wrong() -> None:
    assert Generation(answer="b (.)").scores(["answer"], KEPT, LABELS) == {"answer": 0.5}
    assert Generation(answer="y(.?)").scores(["answer"], KEPT, LABELS) == {"answer": 0.0}


def test_standard_errors_count_prompts() -> None:
    assert Generation().standard_error("exact_match", KEPT) == pytest.approx(0.5 / 2**0.5)
    assert Generation().standard_error("bleu", KEPT) == pytest.approx(50 / 2**0.5)
    assert Generation().standard_error("loss", KEPT) == pytest.approx(0.0)
