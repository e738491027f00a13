"""The fields of a spec with type, default and meaning, read from its pydantic model and its docstring.

The `Args` or `Attributes` section of a class docstring is the only source of a field's meaning: `rankopt list fields`,
`rankopt schema` and `studies/README.md` all take it from here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

Schema = dict[str, Any]
"""JSON Schema as plain data."""


TOO_LARGE = 100_000
"""Upper bounds from here on only catch mistakes; descriptions leave them out."""


class FieldRow(NamedTuple):
    """A field, in words."""

    field: str
    type: str
    default: str
    meaning: str


def summary(model: type[BaseModel]) -> str:
    """The first line of a class docstring."""
    return (inspect.getdoc(model) or "").partition("\n")[0]


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """The meaning of every documented field of a model, inherited ones included.

    Example:
        >>> from rankopt.core.space import FloatRange
        >>> meanings(FloatRange)["log"]
        'sample on a logarithmic scale.'
    """
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        text = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        if section := re.search(r"^(?:Args|Attributes):\n((?: .*\n?|\n)+)", text, re.M):
            for entry in re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section[1], re.M):
                found[entry[0]] = " ".join(entry[1].split())
    return {name: found[name] for name in model.model_fields if name in found}


class _Documented(GenerateJsonSchema):
    def model_schema(self, schema: Any) -> Schema:
        made, model = super().model_schema(schema), schema["cls"]
        made["description"] = summary(model)
        for name, meaning in meanings(model).items():
            field = made["properties"].get(model.model_fields[name].alias or name)
            if field is not None:  # not a field that rankopt sets itself
                field["description"] = meaning
        return made


def schema_of(model: type[BaseModel]) -> Schema:
    """The JSON Schema of a model, with the meaning of every field."""
    return model.model_json_schema(schema_generator=_Documented)


def field_rows(model: type[BaseModel], prefix: str = "") -> Iterator[FieldRow]:
    """The fields of a model and of the models inside it, by dotted path.

    Args:
        model: a spec, an allocator, a search or a pruner.
        prefix: what the paths begin with, for example "training.".
    """
    schema = schema_of(model)
    return _rows(schema, schema.get("$defs", {}), prefix)


def _rows(schema: Schema, models: Schema, prefix: str) -> Iterator[FieldRow]:
    for name, field in schema.get("properties", {}).items():
        inner = _model_inside(field, models)
        default = "required" if name in schema.get("required", ()) else _default(field.get("default"), inner)
        yield FieldRow(f"{prefix}{name}", type_in_words(field), default, field.get("description", ""))
        if inner:
            yield from _rows(inner, models, f"{prefix}{name}.")


def _model_inside(field: Schema, models: Schema) -> Schema | None:
    options = field.get("anyOf", [field])
    reference = next((option["$ref"] for option in options if "$ref" in option), None)
    return models[reference.rpartition("/")[2]] if reference else None


def _default(value: Any, inner: Schema | None) -> str:
    """A default as a study file would write it; of a model inside only what is not its own default."""
    if inner and isinstance(value, dict) and not inner.get("additionalProperties"):
        own = {name: field.get("default") for name, field in inner["properties"].items()}
        changed = {name: item for name, item in value.items() if own.get(name) != item}
        return _flow(changed) if changed else "see below"
    return _flow(value)


def _flow(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return '""' if value == "" else str(value)


def type_in_words(field: Schema) -> str:
    """The type of a field in words.

    Example:
        >>> type_in_words({"type": "integer", "minimum": 1}), type_in_words({"enum": ["fp32", "bf16"]})
        ('integer >= 1', 'fp32 or bf16')
    """
    if options := field.get("anyOf", field.get("oneOf")):
        return " or ".join(dict.fromkeys(type_in_words(part) for part in options if part.get("type") != "null"))
    if "enum" in field or "const" in field:
        return _either([str(value) for value in field.get("enum", [field.get("const")])])
    match field.get("type"):
        case "integer" | "number" as kind:
            limits = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
            bounds = [
                f"{sign} {_number(field[key])}"
                for key, sign in limits.items()
                if abs(field.get(key, TOO_LARGE)) < TOO_LARGE
            ]
            return " ".join([kind, " and ".join(bounds)]) if bounds else kind
        case "string":
            return "text"
        case "boolean":
            return "true or false"
        case "array":
            items = field.get("items")
            return f"list of {type_in_words(items)}" if items else "list"
        case "object" if isinstance(values := field.get("additionalProperties"), dict):
            return f"mapping to {type_in_words(values)}"
        case _:
            return "mapping"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _either(options: list[str]) -> str:
    return " or ".join([", ".join(options[:-1]), options[-1]]) if len(options) > 1 else options[0]
