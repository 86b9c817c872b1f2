"""A CUDA graph's behaviour on the CPU, so that what a graph needs of a step is tested without a card."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def _recorder() -> type:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_flatten

    class Log(TorchDispatchMode):
        """Every operation with its arguments and results; what is written to and was there before is copied first."""

        def __init__(self) -> None:
            super().__init__()
            self.operations: list[tuple[Any, Any, Any, list[Any]]] = []
            self.before: dict[int, tuple[Any, Any]] = {}
            self.own: set[int] = set()
            self.alive: list[Any] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            for spec, value in zip(func._schema.arguments, args, strict=False):
                # native_batch_norm writes its running statistics without saying so in its schema
                silent = "batch_norm" in str(func) and spec.name.startswith("running_")
                if silent or (spec.alias_info is not None and spec.alias_info.is_write):
                    for t in _tensors(value):
                        home = t.untyped_storage().data_ptr()
                        if home not in self.own and home not in self.before:
                            whole = torch.empty(0, dtype=torch.uint8).set_(t.untyped_storage())
                            self.before[home] = (whole, whole.clone())
            out = func(*args, **kwargs)
            results = [t for t in tree_flatten(out)[0] if isinstance(t, torch.Tensor)]
            given = {t.untyped_storage().data_ptr() for t in _tensors((args, kwargs))}
            for t in results:
                if t.untyped_storage().data_ptr() not in given:
                    self.own.add(t.untyped_storage().data_ptr())
            self.alive.append((args, kwargs, out))
            self.operations.append((func, args, kwargs, results))
            return out

    def _tensors(tree: Any) -> list[Any]:
        return [t for t in tree_flatten(tree)[0] if isinstance(t, torch.Tensor)]

    class Recorder:
        """As the CUDA backend: ``capture`` changes nothing, a launch repeats the operations on the same memory, with
        every Python number as it was at the capture."""

        def __init__(self) -> None:
            self.captures = self.launches = 0
            self.operations: list[str] = []

        def capture(self, work: Callable[[], None]) -> Callable[[], None]:
            numbers = torch.get_rng_state()
            log = Log()
            with log:
                work()
            torch.set_rng_state(numbers)
            for whole, copy in log.before.values():
                whole.copy_(copy)
            self.captures += 1
            self.operations = [str(func) for func, *_ in log.operations]

            @torch.no_grad()
            def launch() -> None:
                self.launches += 1
                for func, args, kwargs, results in log.operations:
                    again = _tensors(func(*args, **kwargs))
                    for old, new in zip(results, again, strict=True):
                        if old.data_ptr() != new.data_ptr():
                            old.copy_(new)

            return launch

        def wait(self) -> None:
            pass

    return Recorder


@pytest.fixture
def recorder() -> Any:
    """A backend of ``graphs.StepGraphs`` on the CPU."""
    pytest.importorskip("torch", reason="needs tenfold[torch]")
    return _recorder()()
