"""A toy language whose words show their grammar to a human and hide it from an encoder that sees whole words.

A content word is a stem of two letters, a letter that names its class, and a vowel that names its part of speech. The
last two letters are the word's *kind*:

    pobo  noun (o) of class b        naga  verb (a) of class g        duti  adjective (i) of class t

A clause is `adjective noun verb adjective noun`, as in "duti pobo naga bidi zizo", or two phrases joined by a particle,
as in "duti pobo and bidi zizo". To the encoder words are numbers, so it has to learn their kinds from the corpus.

The corpus says a clause twice: in the second clause some words are replaced by others of their kind, and some by any
others. So it teaches what kind each word is, and nothing about which kinds belong together. The rules for that are the
tasks in `mini.py`, and fine-tuning has to write them into the encoder.
"""

from __future__ import annotations

from random import Random

CLASSES = "bdgklmnprstz"
NOUN, VERB, ADJECTIVE = "o", "a", "i"
PARTICLES = ("and", "not")
MEMBERS = 6
SLOTS = (ADJECTIVE, NOUN, VERB, ADJECTIVE, NOUN)


def _lexicon() -> dict[str, tuple[str, ...]]:
    """Words by kind: `LEXICON["bo"]` are the nouns of class b. A particle is a kind of its own."""
    rng = Random("rankopt lexicon")
    stems = [consonant + vowel for consonant in "bdfghjklmnprstvz" for vowel in "aeiou"]
    words = {
        letter + part: tuple(sorted(stem + letter + part for stem in rng.sample(stems, MEMBERS)))
        for part in (NOUN, VERB, ADJECTIVE)
        for letter in CLASSES
    }
    return words | {particle: (particle,) for particle in PARTICLES}


LEXICON = _lexicon()
KINDS = tuple(LEXICON)
WORDS = tuple(word for members in LEXICON.values() for word in members)


def kind_of(word: str) -> str:
    """The kind of a word: its last two letters, or the word itself for a particle.

    Args:
        word: a word of the language.
    Returns:
        A key of `LEXICON`.
    Raises:
        KeyError: if the language has no such word.

    >>> kind_of(LEXICON["bo"][0]), kind_of("not")
    ('bo', 'not')
    """
    kind = word if word in PARTICLES else word[2:]
    if word not in LEXICON.get(kind, ()):
        raise KeyError(f"the toy language has no word {word!r}; see WORDS")
    return kind


def draw(rng: Random, kind: str) -> str:
    """A random word of this kind."""
    return rng.choice(LEXICON[kind])


def clause(rng: Random, joined: float = 0.25) -> list[str]:
    """The kinds of a random clause, all independent; with probability `joined` a particle takes the verb's place."""
    kinds = [rng.choice(CLASSES) + part for part in SLOTS]
    if rng.random() < joined:
        kinds[2] = rng.choice(PARTICLES)
    return kinds


def corpus(rng: Random, size: int) -> list[tuple[str, str]]:
    """Pairs of clauses; a word of the second has the kind of its counterpart in the first, or (half of them) any.

    Args:
        rng: the source of randomness.
        size: how many pairs.
    Returns:
        Pairs of five-word texts.

    >>> first, second = corpus(Random(0), 1)[0]
    >>> len(first.split()), len(second.split())
    (5, 5)
    """

    def say(kinds: list[str]) -> str:
        return " ".join(draw(rng, kind) for kind in kinds)

    pairs = []
    for _ in range(size):
        first, other = clause(rng), clause(rng)
        second = [rng.choice(pair) for pair in zip(first, other, strict=True)]
        pairs.append((say(first), say(second)))
    return pairs
