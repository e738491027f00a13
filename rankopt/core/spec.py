"""The base of all specs: frozen values that refuse unknown keys and validate every field on creation."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
T = TypeVar("T", bound=BaseModel)


class Spec(BaseModel):
    """Base of all specs. Strict: `"3"` is not a number and `true` is not an integer."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Named(BaseModel):
    """A registered name, with the member's own options beside it.

    Attributes:
        name: the registered name.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options given."""
        return dict(self.__pydantic_extra__ or {})


def decode(kind: type[T], data: Any) -> T:
    """A spec from plain data, validated as JSON: lists become tuples, strings never become numbers."""
    found: T = _decoded(kind, json.dumps(data))
    return found


@lru_cache(maxsize=4096)  # a report asks for the spec of each of its trials several times; specs are frozen
def _decoded(kind: type[BaseModel], text: str) -> Any:
    return kind.model_validate_json(text)


def content_hash(data: Any) -> str:
    """12 hexadecimal digits of the SHA-256 of plain data, independent of the order of keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
