"""A JSON Schema of study files, for completion and validation in editors.

It describes every field with type, limits and meaning, the dotted paths that can be dimensions, and the options of each
allocator, tuner, search and pruner. Rules that relate several fields are left to `rankopt validate`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from rankopt.core.fields import Schema, schema_of, summary
from rankopt.core.space import INNER
from rankopt.core.study_spec import REPEATABLE, TUNABLE, StudySpec
from rankopt.core.trial_spec import TrialSpec

Models = Mapping[str, type[BaseModel]]
GLOB = r"\[[^\[\],]+\]"


class Members(NamedTuple):
    """The registered members that a study file can name."""

    tasks: Iterable[str]
    allocators: Models
    tuners: Models
    searches: Models
    pruners: Models


def study_schema(members: Members) -> Schema:
    """The JSON Schema of a study file."""
    trial = _trial(members)
    paths = dict(_paths(trial))
    study = _inlined(schema_of(StudySpec))
    fields = study["properties"]
    fields["name"]["not"] = {"pattern": r"\.[yY][aA]?[mM][lL]$"}
    fields["base"] = _partial(trial) | {"description": fields["base"]["description"]}
    fields["space"] |= _table(paths, ranges=True)
    fields["repeat"] |= _table({p: field for p, field in paths.items() if p.split(".")[0] in REPEATABLE}, ranges=False)
    fields["tune"] |= _table({p: field for p, field in paths.items() if p.split(".")[0] in TUNABLE}, ranges=False)
    fields["search"] = _search(members) | {"description": fields["search"]["description"]}
    fields["objectives"] |= {
        "properties": {
            "score": {
                "enum": ["maximize", "minimize"],
                "description": "the score on the search split; default: the direction of the task's first metric.",
            },
            "parameters": {"const": "minimize"},
        }
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "rankopt study",
        **study,
        "$defs": {key: _inlined(schema_of(model)) for key, model in INNER.items()},
    }


def _trial(members: Members) -> Schema:
    trial = _inlined(schema_of(TrialSpec))
    fields = trial["properties"]
    name = fields["task"]["properties"]["name"]
    registered = name | {"enum": sorted(members.tasks)}
    fields["task"] |= {"if": {"not": {"required": ["data"]}}, "then": {"properties": {"name": registered}}}
    fields["allocator"] = _named(members.allocators) | {"description": fields["allocator"]["description"]}
    tuner = _named(members.tuners)
    described = {"description": fields["tuner"]["description"]}
    fields["tuner"] = {"anyOf": [tuner, {"type": "array", "minItems": 1, "items": tuner}], **described}
    return trial


def _search(members: Members) -> Schema:
    search = _named(members.searches, default="grid")
    for option in search["allOf"]:
        option["then"]["properties"]["pruner"]["anyOf"] = [_named(members.pruners), {"type": "null"}]
    return search


def _named(models: Models, default: str | None = None) -> Schema:
    """A mapping with a registered name beside the options of the member of that name."""
    members = []
    for name, model in models.items():
        then = _inlined(schema_of(model))
        then["properties"] = {"name": {"const": name}, **then.get("properties", {})}
        chosen: Schema = {"properties": {"name": {"const": name}}, "required": [] if name == default else ["name"]}
        members.append({"if": chosen, "then": then})
    known = {
        "enum": list(models),
        "description": " ".join(f"{name}: {summary(model)}" for name, model in models.items()),
    }
    required = {} if default else {"required": ["name"]}
    return {"type": "object", "properties": {"name": known}, **required, "allOf": members}


def _inlined(schema: Schema) -> Schema:
    """A schema without references: every model stands where it is used."""
    models = schema.pop("$defs", {})

    def inline(part: Any) -> Any:
        if isinstance(part, list):
            return [inline(item) for item in part]
        if not isinstance(part, dict):
            return part
        rest = {key: inline(value) for key, value in part.items() if key != "$ref"}
        if isinstance(rest.get("title"), str):
            del rest["title"]  # pydantic's names of classes and fields say nothing new
        return {**inline(models[part["$ref"].rpartition("/")[2]]), **rest} if "$ref" in part else rest

    inlined: Schema = inline(schema)
    return inlined


def _partial(schema: Schema) -> Schema:
    """A trial whose other fields are dimensions: nothing is required."""
    partial = {key: value for key, value in schema.items() if key != "required"}
    if "allOf" not in schema and "properties" in schema:
        partial["properties"] = {name: _partial(field) for name, field in schema["properties"].items()}
    return partial


def _paths(trial: Schema, prefix: str = "") -> Iterator[tuple[str, Schema]]:
    """The dotted paths of a trial's fields, with their schemas."""
    for name, field in trial["properties"].items():
        path = f"{prefix}{name}"
        yield path, field
        for option in field.get("anyOf", [field]):
            if "allOf" in option:
                yield f"{path}.name", option["properties"]["name"]
                yield from ((f"{path}.{name}", any_of) for name, any_of in _options(option).items())
            elif "properties" in option:
                yield from _paths(option, f"{path}.")


def _options(named: Schema) -> Schema:
    """The options of all members of a kind; members may give one name different types and meanings."""
    types: dict[str, list[Schema]] = {}
    meanings: dict[str, list[str]] = {}
    for member in named["allOf"]:
        own = dict(member["then"]["properties"])
        label = own.pop("name")["const"]
        for name, field in own.items():
            kept = {key: value for key, value in field.items() if key not in ("description", "default")}
            types.setdefault(name, []).extend([kept] if kept not in types.get(name, []) else [])
            meanings.setdefault(name, []).append(f"{label}: {field.get('description', '')}")
    return {name: {"anyOf": types[name], "description": " ".join(meanings[name])} for name in types}


def _table(paths: Mapping[str, Schema], ranges: bool) -> Schema:
    """A mapping from dotted paths to dimensions: of one field, of a field's glob, or of several fields together."""
    globs = {
        path: option["additionalProperties"]
        for path, field in paths.items()
        for option in field.get("anyOf", [field])
        if isinstance(option.get("additionalProperties"), dict)
    }
    one = "|".join(re.escape(path) + (f"({GLOB})?" if path in globs else "") for path in paths)
    together = {"type": "array", "minItems": 1, "items": {"type": "array", "minItems": 2}}
    return {
        "properties": {path: _dimension(field, ranges) for path, field in paths.items()},
        "patternProperties": {
            **{f"^{re.escape(path)}{GLOB}$": _dimension(field, ranges) for path, field in globs.items()},
            rf"^({one})(\s*,\s*({one}))+$": together,
        },
        "additionalProperties": False,
    }


def _dimension(field: Schema, ranges: bool) -> Schema:
    if not ranges:
        return {"type": "array", "minItems": 1, "items": field, **_described(field)}
    listed = {"type": "array", "minItems": 1, "items": _open(field)}
    return {"anyOf": [listed, {"$ref": "#/$defs/int"}, {"$ref": "#/$defs/float"}], **_described(field)}


def _described(field: Schema) -> Schema:
    return {key: field[key] for key in ("description",) if key in field}


def _open(field: Schema) -> Schema:
    """A field any part of which may be an inner dimension instead."""
    opened = dict(field)
    if "properties" in field:
        opened["properties"] = {
            name: part if name == "name" else _open(part) for name, part in field["properties"].items()
        }
    if "allOf" in field:
        opened["allOf"] = [{"if": one["if"], "then": _open(one["then"])["anyOf"][0]} for one in field["allOf"]]
    for key in ("items", "additionalProperties"):
        if isinstance(field.get(key), dict):
            opened[key] = _open(field[key])
    if "anyOf" in field:
        opened["anyOf"] = [_open(option)["anyOf"][0] for option in field["anyOf"]]
    return {"anyOf": [opened, *({"$ref": f"#/$defs/{key}"} for key in INNER)], **_described(field)}
