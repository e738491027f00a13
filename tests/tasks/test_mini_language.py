"""The toy language: spelling tells the category of a word, and the corpus repeats categories."""

from __future__ import annotations

from random import Random

import pytest

from rankopt.tasks import mini_language


def test_spelling_and_category_agree():
    assert len(set(mini_language.WORDS)) == len(mini_language.WORDS)
    for category, members in mini_language.LEXICON.items():
        assert {mini_language.category_of(word) for word in members} == {category}
    with pytest.raises(KeyError, match="'xxbo'"):
        mini_language.category_of("xxbo")


def test_the_corpus_repeats_about_half_of_the_categories():
    pairs = mini_language.corpus(Random(1), 1000)
    same = [
        mini_language.category_of(a) == mini_language.category_of(b)
        for first, second in pairs
        for a, b in zip(first.split(), second.split(), strict=True)
    ]
    assert 0.4 < sum(same) / len(same) < 0.7
