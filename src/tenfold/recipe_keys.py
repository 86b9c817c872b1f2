"""Which keys a recipe may have: one that is not known is refused with the nearest known one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from tenfold.errors import UnknownNameError, nearest


def walk(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, Pydantic's field) of every field of a model and its parts, in order."""
    for name, info in model.model_fields.items():
        inner = _part_class(info.annotation)
        if inner:
            yield from walk(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, info


def _part_class(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def refuse_unknown(data: Mapping[str, Any], root: type[BaseModel], where: str) -> None:
    """Raises UnknownNameError for the first key of nested ``data`` that is no field of ``root``."""
    _refuse(data, root, [name for name, _ in walk(root)], where, "")


def _refuse(data: Mapping[str, Any], model: type[BaseModel], full: list[str], where: str, prefix: str) -> None:
    for key, value in data.items():
        if key not in model.model_fields:
            known = list(model.model_fields)
            close = nearest(str(key), known)
            if close is None:
                close_full = nearest(prefix + str(key), full) or next(
                    (f for f in full if f.rsplit(".", 1)[-1] == str(key)), None
                )
                known = [close_full] if close_full else known
                raise UnknownNameError("recipe field", prefix + str(key), known or full, where=f" ({where})")
            raise UnknownNameError("recipe field", prefix + str(key), [prefix + close], where=f" ({where})")
        inner = _part_class(model.model_fields[key].annotation)
        if inner and isinstance(value, Mapping):
            _refuse(value, inner, full, where, f"{prefix}{key}.")


def refuse_unknown_path(key: str, root: type[BaseModel], where: str) -> None:
    """Raises UnknownNameError where the dotted ``key`` is neither a field of ``root`` nor a part of it."""
    model: type[BaseModel] | None = root
    for name in key.split("."):
        if model is None or name not in model.model_fields:
            raise unknown_field(key, [name for name, _ in walk(root)], where)
        model = _part_class(model.model_fields[name].annotation)


def unknown_field(key: str, full: list[str], where: str) -> UnknownNameError:
    """The error for a dotted ``key`` that is none of ``full``."""
    same_leaf = [f for f in full if f.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    close = same_leaf[:1] or [n for n in [nearest(key, full)] if n]
    return UnknownNameError("recipe field", key, close or full, where=f" ({where})")
