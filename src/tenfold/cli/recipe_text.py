"""A recipe as YAML with the meaning of every field beside it, and the reference of all fields."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tenfold.recipe import Recipe, fields, from_mapping

WIDTH = 110
COMMENT_COLUMN = 36
REQUIRED = "*required*"  # stands for the default where a field has none


@dataclass(frozen=True)
class FieldNote:
    """A recipe field: its dotted name, its default, what it may be, and what it means, in words."""

    name: str
    default: Any
    values: str
    meaning: str


@dataclass(frozen=True)
class Line:
    """One line of the annotated YAML. ``changed``: the value is not the default."""

    text: str
    comment: str = ""
    changed: bool = False

    def __str__(self) -> str:
        if not self.comment:
            return self.text
        return f"{self.text:<{COMMENT_COLUMN - 2}}  # {self.comment}" if self.text else f"# {self.comment}"


def notes() -> dict[str, FieldNote]:
    """Every field of a recipe by its dotted name, in the recipe's order."""
    schema = Recipe.model_json_schema()
    found = {}
    for name, info in fields():
        default = REQUIRED if info.is_required() else info.get_default()
        values = values_in_words(_property(schema, name))
        found[name] = FieldNote(name, _listed(default), values, info.description or "")
    return found


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def annotated(recipe: Recipe, width: int = WIDTH) -> Iterator[Line]:
    """The whole recipe as YAML lines; read back, they give an equal recipe."""
    data, defaults = recipe.model_dump(mode="json"), from_mapping({}).model_dump(mode="json")
    yield from _annotated(data, defaults, "", notes(), max(width, COMMENT_COLUMN + 24))


def _annotated(
    data: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str, known: Mapping[str, FieldNote], width: int
) -> Iterator[Line]:
    indent = "  " * prefix.count(".")
    for key, value in data.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and prefix + key not in known:  # a part, not a field that is a mapping
            yield from _commented(f"{indent}{key}:", about(prefix + key), False, width)
            yield from _annotated(value, default or {}, f"{prefix}{key}.", known, width)
            continue
        note = known.get(prefix + key)
        meaning = _comment(note) if note else about(prefix + key)
        yield from _commented(f"{indent}{key}: {scalar(value)}", meaning, value != default, width)


def _comment(note: FieldNote) -> str:
    if note.name in ("name", "description"):  # they explain themselves, and may be long
        return ""
    values = "" if note.values in ("true or false", "text") else f"({note.values})"
    return f"{note.meaning} {values}".strip()


def _commented(text: str, comment: str, changed: bool, width: int) -> Iterator[Line]:
    wrapped = textwrap.wrap(comment.replace("``", ""), width - COMMENT_COLUMN - 2)
    if len(text) > COMMENT_COLUMN - 2 and comment:
        yield from (Line(" " * (len(text) - len(text.lstrip())) + f"# {part}") for part in wrapped)
        yield Line(text, changed=changed)
        return
    yield Line(text, wrapped[0] if wrapped else "", changed)
    yield from (Line(" " * COMMENT_COLUMN + f"# {part}") for part in wrapped[1:])


def scalar(value: Any) -> str:
    """``value`` as YAML on one line."""
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=2**30)
    return text.removesuffix("\n").removesuffix("\n...")


# ---- what a field may be --------------------------------------------------------------------------------


def _property(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The JSON schema of a dotted field."""
    part = schema
    for key in name.split("."):
        part = _part(schema, part)["properties"][key]
    return part


def _part(schema: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    """``part`` itself, or the definition that it, or one of its alternatives, refers to."""
    for candidate in (part, *part.get("anyOf", ()), *part.get("allOf", ())):
        if "$ref" in candidate:
            definition: Mapping[str, Any] = schema["$defs"][candidate["$ref"].rsplit("/", 1)[1]]
            return definition
    return part


def values_in_words(schema: Mapping[str, Any]) -> str:
    """What a JSON schema admits: ``squash, crop or pad``; ``number, 0 to 1``; ``auto or integer > 4``."""
    if "anyOf" in schema:
        return " or ".join(values_in_words(s) for s in schema["anyOf"])
    if "enum" in schema:
        names = [str(v) for v in schema["enum"]]
        return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]
    if "const" in schema:
        return str(schema["const"])
    kind = str(schema.get("type"))
    if kind in ("integer", "number"):
        return kind + _bounds(schema)
    if kind == "array":
        items = schema.get("prefixItems")
        each = values_in_words(items[0] if items else schema["items"])
        return f"list of {len(items)}, each {each}" if items else f"list, each {each}"
    return {"boolean": "true or false", "null": "null", "string": "text", "object": "mapping"}.get(kind, kind)


def _bounds(schema: Mapping[str, Any]) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f", {low:g} to {high:g}"
    signs = {"≥": low, ">": above, "≤": high, "<": below}
    limits = [f"{sign} {limit:g}" for sign, limit in signs.items() if limit is not None and abs(limit) < 2**53]
    return " " + ", ".join(limits) if limits else ""


# ---- the reference ---------------------------------------------------------------------------------------


def reference() -> str:
    """Every field of a recipe as a Markdown table for each part."""
    parts: dict[str, list[FieldNote]] = {}
    for note in notes().values():
        parts.setdefault(note.name.rpartition(".")[0], []).append(note)
    return "\n".join(_section(part, rows) for part, rows in parts.items())


def _section(part: str, rows: list[FieldNote]) -> str:
    lines = [f"### `{part}`" if part else "### The run", ""]
    lines += [about(part), ""] if part else []
    lines += ["| Field | Default | Values | Meaning |", "| --- | --- | --- | --- |"]
    for note in rows:
        default = note.default if note.default == REQUIRED else f"`{scalar(note.default)}`"
        cells = (f"`{note.name}`", default, note.values, note.meaning)
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return "\n".join([*lines, ""])


@functools.cache
def about(part: str) -> str:
    """What a part of the recipe is for: its class's docstring on one line."""
    schema = Recipe.model_json_schema()
    return " ".join(str(_part(schema, _property(schema, part)).get("description", "")).split())
