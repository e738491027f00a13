"""A toy language: words show their grammar to a human reader, but not to an encoder that sees whole words as tokens.

A content word is a stem of two letters, a letter for its class, and a vowel for its part of speech. The last two
letters are the word's *category*:

    pobo  noun (o) of class b        naga  verb (a) of class g        duti  adjective (i) of class t

A clause is `adjective noun verb adjective noun`, as in "duti pobo naga bidi zizo", or two phrases joined by a particle,
as in "duti pobo and bidi zizo". Words are just numbers to the encoder; it learns their categories from the corpus.

The corpus states a clause twice. In the second clause some words are replaced by others of their category, and some by
arbitrary words. It therefore teaches the category of each word, and nothing about which categories go together. Those
rules are the tasks in `mini.py`, which fine-tuning has to add to the encoder.
"""

from __future__ import annotations

from random import Random

CLASSES = "bdgklmnprstz"
NOUN, VERB, ADJECTIVE = "o", "a", "i"
PARTICLES = ("and", "not")
MEMBERS = 6
SLOTS = (ADJECTIVE, NOUN, VERB, ADJECTIVE, NOUN)


def _lexicon() -> dict[str, tuple[str, ...]]:
    """Words by category: `LEXICON["bo"]` are the nouns of class b. Each particle is its own category."""
    rng = Random("rankopt lexicon")
    stems = [consonant + vowel for consonant in "bdfghjklmnprstvz" for vowel in "aeiou"]
    words = {
        letter + part: tuple(sorted(stem + letter + part for stem in rng.sample(stems, MEMBERS)))
        for part in (NOUN, VERB, ADJECTIVE)
        for letter in CLASSES
    }
    return words | {particle: (particle,) for particle in PARTICLES}


LEXICON = _lexicon()
CATEGORIES = tuple(LEXICON)
WORDS = tuple(word for members in LEXICON.values() for word in members)


def category_of(word: str) -> str:
    """The category of a word: its last two letters, or the word itself for a particle.

    Args:
        word: a word of the language.
    Returns:
        A key of `LEXICON`.
    Raises:
        KeyError: the language has no such word.

    >>> category_of(LEXICON["bo"][0]), category_of("not")
    ('bo', 'not')
    """
    category = word if word in PARTICLES else word[2:]
    if word not in LEXICON.get(category, ()):
        raise KeyError(f"the toy language has no word {word!r}; see WORDS")
    return category


def draw(rng: Random, category: str) -> str:
    """A random word of a category."""
    return rng.choice(LEXICON[category])


def clause(rng: Random, joined: float = 0.25) -> list[str]:
    """The categories of a random clause, all independent; with probability `joined` a particle replaces the verb."""
    categories = [rng.choice(CLASSES) + part for part in SLOTS]
    if rng.random() < joined:
        categories[2] = rng.choice(PARTICLES)
    return categories


def corpus(rng: Random, size: int) -> list[tuple[str, str]]:
    """Pairs of clauses. Each word of the second has its counterpart's category with probability 1/2, else any.

    Args:
        rng: the source of randomness.
        size: number of pairs.
    Returns:
        Pairs of five-word texts.

    >>> first, second = corpus(Random(0), 1)[0]
    >>> len(first.split()), len(second.split())
    (5, 5)
    """

    def say(categories: list[str]) -> str:
        return " ".join(draw(rng, category) for category in categories)

    pairs = []
    for _ in range(size):
        first, other = clause(rng), clause(rng)
        second = [rng.choice(pair) for pair in zip(first, other, strict=True)]
        pairs.append((say(first), say(second)))
    return pairs
