"""Write values.schema.json: what helm checks values by, from the models that the file server checks its config by.

    python helm/generate.py [FILE]

The chart's own values are described in `chart_values.py`, everything below `config` by `fileserver.config` and the
providers' settings.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final, Literal

from chart_values import NAME, Values
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from fileserver.config import Document
from fileserver.hdf5.hsds.settings import HsdsSettings
from planes.opening import PROVIDERS, provider

HERE: Final = Path(__file__).parent
WRITTEN: Final = ("listen", "state", "database", "replicas", "metrics")
"""Sections of the config that the chart writes itself."""

_DURATION: Final = r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d)\s*$"  # as `fileserver.config` reads it

Schema = dict[str, Any]  # JSON


def schema() -> Schema:
    """The JSON schema of the values."""
    kinds = {kind: provider(kind).settings for kind in PROVIDERS if kind != "memory"}  # that one dies with its pod
    checked: tuple[type[BaseModel], ...] = (Values, Document, HsdsSettings, *kinds.values())
    models: list[tuple[type[BaseModel], Literal["validation"]]] = [(model, "validation") for model in checked]
    places, whole = models_json_schema(models, schema_generator=_Generated)
    at = {model: place for (model, _), place in places.items()}
    found = _plain(whole)["$defs"]
    document = found.pop(_last(at[Document]))
    properties = {key: each for key, each in document["properties"].items() if key not in WRITTEN}
    properties["planes"] = _named(
        {
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"enum": list(kinds)}},
            "allOf": [
                {"if": {"properties": {"type": {"const": kind}}}, "then": at[model]} for kind, model in kinds.items()
            ],
        }
    )
    properties["hsds"] = _named(at[HsdsSettings])
    config = {"type": "object", "description": Document.__doc__, "properties": properties}
    values = found.pop(_last(at[Values]))
    values["properties"]["config"] = config | {"additionalProperties": False}
    used = _used(values, found)
    return {"$schema": "http://json-schema.org/draft-07/schema#", **values, "definitions": used}


class _Generated(GenerateJsonSchema):
    """References as draft 7 has them, and a place of its own for each model, whatever others are called."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__(by_alias=True, ref_template="#/definitions/{model}")


def _named(schema: Schema) -> Schema:
    return {"type": "object", "minProperties": 1, "propertyNames": {"pattern": NAME}, "additionalProperties": schema}


def _last(reference: Any) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _plain(schema: Schema) -> Schema:
    """Without defaults (values.yaml has them), titles, and what only Python knows."""
    if schema.get("format") == "duration":
        return {"type": "string", "pattern": _DURATION}
    plain: Schema = {}
    for key, each in schema.items():
        if key in {"default", "title", "ge"} or (key, each) == ("format", "path"):
            continue
        if key in {"properties", "patternProperties", "$defs"}:
            plain[key] = {name: _plain(inner) for name, inner in each.items()}
        elif isinstance(each, list):
            plain[key] = [_plain(inner) if isinstance(inner, dict) else inner for inner in each]
        else:
            plain[key] = _plain(each) if isinstance(each, dict) else each
    if "patternProperties" in plain:
        plain["additionalProperties"] = False
    return plain


def _used(values: Schema, found: Schema) -> Schema:
    """Definitions that something refers to."""
    used: Schema = {}
    text = json.dumps(values)
    while more := {name: each for name, each in found.items() if name not in used and f'/{name}"' in text}:
        used |= more
        text += json.dumps(more)
    return dict(sorted(used.items()))


def main(target: Path) -> None:
    """Write the file."""
    target.write_text(json.dumps(schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "values.schema.json")
