"""Plain parameters without Pydantic: what keeps ``tenfold predict`` quick.

Newer versions of Typer turn every parameter into its type through a Pydantic adapter, whose import and schema
take about 0.09 s, half of what predicting one picture takes. Text, paths, numbers and flags need none of it.
What is not plainly right is still left to Typer, so its checks and its messages stay the ones the user meets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

_WHOLE = re.compile(r"[+-]?\d{1,18}")


class LightCommand(TyperCommand):
    """A Typer command whose parameters take the short way."""

    def get_params(self, ctx: Any) -> Any:
        return lightened(super().get_params(ctx))


def lightened(parameters: Iterable[Any]) -> list[Any]:
    """The same parameters, set on the short way. A Typer that has no adapters is left as it is."""
    parameters = list(parameters)
    for parameter in parameters:
        if getattr(parameter, "_runtime_param", False) is None and hasattr(parameter, "type_descriptor"):
            parameter._runtime_param = _Light(parameter)
    return parameters


class _Light:
    """Stands where Typer keeps a parameter's adapter, and has the real one made only where it is needed."""

    def __init__(self, parameter: Any) -> None:
        self.parameter = parameter

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        descriptor = self.parameter.type_descriptor
        wanted, info = descriptor.annotation, descriptor.parameter_info
        if info.parser is None:
            if several and isinstance(value, (list, tuple)):
                values = [_plain(v, wanted, info) for v in value if wanted in (list[str], list[Path])]
                if len(values) == len(value) and None not in values:
                    return values
            elif not several and (result := _plain(value, wanted, info)) is not None:
                return result
        self.parameter._runtime_param = None
        return self.parameter.get_runtime_param().coerce(value, param=param, ctx=ctx)


def _plain(value: Any, wanted: Any, info: Any) -> Any:
    """``value`` as ``wanted`` where that is plain; else None."""
    if wanted in (str, list[str]):
        return value if isinstance(value, str) else None
    if wanted in (Path, list[Path]):
        demands = info.exists or info.writable or info.resolve_path or info.allow_dash or info.path_type
        demands = demands or not (info.file_okay and info.dir_okay)
        return Path(value) if isinstance(value, (str, Path)) and not demands else None
    if wanted in (int, float):
        return _number(value, wanted, info)
    return value if wanted is bool and isinstance(value, bool) else None


def _number(value: Any, wanted: Any, info: Any) -> Any:
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = wanted(value)
    if type(value) is not wanted:
        return None
    low, high = info.min, info.max
    return value if (low is None or value >= low) and (high is None or value <= high) else None
