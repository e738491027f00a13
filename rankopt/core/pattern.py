"""A rank pattern: how many components each adapted layer keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from rankopt.core.errors import shown


class Shape(NamedTuple):
    """The shape of an adapted linear map. One component costs `fan_in + fan_out` parameters."""

    fan_in: int
    fan_out: int

    @property
    def cost(self) -> int:
        return self.fan_in + self.fan_out


Shapes = Mapping[str, Shape]
V = TypeVar("V")


class RankPattern(Mapping[str, int]):
    """A frozen mapping layer name -> rank.

    Args:
        ranks: a non-negative integer for every adapted layer.
    Raises:
        ValueError: not a mapping, or a rank is negative or not an integer.
    Example:
        >>> pattern = RankPattern({"encoder.0.query": 2, "encoder.0.value": 0})
        >>> pattern.total, pattern.mean
        (2, 1.0)
        >>> pattern.parameters({"encoder.0.query": Shape(4, 4), "encoder.0.value": Shape(4, 4)})
        16
    """

    __slots__ = ("_ranks",)

    def __init__(self, ranks: Mapping[str, int]) -> None:
        if not isinstance(ranks, Mapping):
            raise ValueError(f"a rank pattern must be a mapping from layer to rank, got {shown(ranks)}")
        for name, rank in ranks.items():
            if not isinstance(rank, int) or isinstance(rank, bool) or rank < 0:
                raise ValueError(f"a rank must be an integer >= 0, got {shown(rank)} for layer {name!r}")
        self._ranks = dict(sorted(ranks.items()))

    def __getitem__(self, name: str) -> int:
        return self._ranks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ranks)

    def __len__(self) -> int:
        return len(self._ranks)

    def __hash__(self) -> int:
        return hash(tuple(self._ranks.items()))

    def __repr__(self) -> str:
        return f"RankPattern({self._ranks!r})"

    @property
    def total(self) -> int:
        """The number of components over all layers."""
        return sum(self._ranks.values())

    @property
    def mean(self) -> float:
        """The average rank of a layer; 0 for an empty pattern."""
        return self.total / len(self) if self._ranks else 0.0

    def parameters(self, shapes: Shapes) -> int:
        """Adapter parameters kept, `sum_k r_k (fan_in_k + fan_out_k)`; gates are merged into the factors."""
        return sum(rank * shapes[name].cost for name, rank in self._ranks.items())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls, serialization=core_schema.plain_serializer_function_ser_schema(lambda pattern: dict(pattern))
        )


def match_globs(globs: Mapping[str, int], names: list[str]) -> RankPattern:
    """Give every layer the rank of the longest glob that matches its name, or 0 if none matches.

    Args:
        globs: glob over full layer names -> rank, for example `{"*": 2, "*.query": 8}`.
        names: the adapted layers.
    Raises:
        ValueError: a glob matches no layer.
    Example:
        >>> match_globs({"*": 1, "*.value": 3}, ["0.query", "0.value"])
        RankPattern({'0.query': 1, '0.value': 3})
    """
    return RankPattern(longest_globs(globs, names, 0))


def longest_globs(globs: Mapping[str, V], names: list[str], default: V) -> dict[str, V]:
    """For every name, the value of the longest glob that matches it.

    Among globs of equal length the alphabetically last one counts: the order of the mapping must not matter, because
    neither a spec's key nor its JSON preserves it.

    Args:
        globs: glob over full layer names -> value.
        names: the adapted layers.
        default: value of names that no glob matches.
    Raises:
        ValueError: a glob matches no layer.
    Example:
        >>> longest_globs({"*.value": 0.5}, ["0.query", "0.value"], 0.0)
        {'0.query': 0.0, '0.value': 0.5}
    """
    values = dict.fromkeys(names, default)
    for glob, value in sorted(globs.items(), key=lambda item: (len(item[0]), item[0])):
        hits = [name for name in names if fnmatchcase(name, glob)]
        if not hits:
            example = f", for example {names[0]!r}" if names else ""
            raise ValueError(f"the glob {shown(glob)} matches no adapted layer{example}")
        values.update(dict.fromkeys(hits, value))
    return values
