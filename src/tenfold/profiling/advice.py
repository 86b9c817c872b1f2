"""What a profile means in sentences: what takes the time, and what may help."""

from __future__ import annotations

from collections.abc import Sequence

from tenfold import hardware
from tenfold.profiling.records import Profile
from tenfold.recipe import Recipe
from tenfold.words import percent

MUCH = 0.15  # a share that is worth a sentence
MOST = 0.5


def of_training(found: Profile, recipe: Recipe, placement: str) -> list[str]:
    """``placement``: ``device`` where the pictures lie there, ``stream`` where they are read in batches."""
    separate = found.device.partition(":")[0] in ("cuda", "xpu") and bool(found.operations)
    said = [_balance(found, separate)]
    if found.share("data") >= MUCH:
        said.append(_data(found, placement))
    if found.share("host") >= MUCH:
        said.append(_host(found, separate, recipe))
    if found.share("idle") >= MUCH:
        said.append(_idle(found, separate, recipe))
    said += _kinds(found, recipe)
    return said + _precision(found)


def _balance(found: Profile, separate: bool) -> str:
    busy = found.share("device")
    if separate:
        return (
            f"The device computes {_share(busy)} of a step's time and waits {_share(1 - busy)}: for data "
            f"{_share(found.share('data'))}, for the host {_share(found.share('host'))}, for nothing that is recorded "
            f"{_share(found.share('idle'))}."
        )
    if busy >= 0.7:
        return f"Computing takes {_share(busy)} of a step: the processor is busy with the network itself."
    return f"Computing takes {_share(busy)} of a step; the rest is told below."


def _data(found: Profile, placement: str) -> str:
    share = _share(found.share("data"))
    if placement == "stream":
        return (
            f"{share} of a step is spent waiting for pictures: one thread reads them in batches from the disk or from "
            "memory. A faster disk, free memory for the system's cache, or a smaller data.size shorten the wait."
        )
    return (
        f"{share} of a step goes into looking up its pictures on the host. Larger batches (--batch-size) take fewer "
        "lookups; less random augmentation draws fewer numbers."
    )


def _host(found: Profile, separate: bool, recipe: Recipe) -> str:
    share = _share(found.share("host"))
    if separate and not recipe.cuda_graphs:
        return (
            f"{share} of a step the device waits for Python, which launches one kernel after another: "
            "--set cuda_graphs=true launches a step at once. Larger batches help too."
        )
    if not found.operations:
        return f"{share} of a step goes into Python and sending arrays: larger batches (--batch-size) share it out."
    return (
        f"{share} of a step is Python and launching between the operations: the batches are small for this network. A "
        f"larger one (--batch-size, now {found.images}) shares that out among more images."
    )


def _idle(found: Profile, separate: bool, recipe: Recipe) -> str:
    share = _share(found.share("idle"))
    if separate:
        return f"{share} of a step neither the device nor the host is seen to do anything: the host waits too often."
    parts = recipe.virtual_batch_size
    more = (
        f" The batch of {found.images} is computed in parts of {parts}: a multiple of the cores is even."
        if parts
        else ""
    )
    return (
        f"{share} of a step is spent waiting: the threads for each other at its end, or for a processor that other "
        f"programs use.{more}"
    )


def _kinds(found: Profile, recipe: Recipe) -> list[str]:
    said = []
    share = {cost.name: cost.share for cost in found.kinds}
    convolution = share.get("convolution forward", 0.0) + share.get("convolution backward", 0.0)
    if convolution >= 0.3:
        low = "" if recipe.low_res is not None else "smaller pictures in the first part (low_res), "
        said.append(
            f"Convolutions take {_share(convolution)} of a step. {low.capitalize()}{'n' if low else 'N'}arrower layers "
            "(model.widths) or fewer epochs are what makes a run with them shorter."
        )
    for name, hint in (
        (
            "augmentation",
            "Fewer augmentations, or lighter ones (translate and flip are the cheapest), would shorten it.",
        ),
        ("optimizer", "SGD costs less than Muon or Adam; a larger batch has fewer updates."),
        (
            "casts and copies",
            "One precision throughout (--set precision=fp32) has none of them, and slower arithmetic.",
        ),
    ):
        if share.get(name, 0.0) >= MUCH:
            said.append(
                f"The {name} take{'' if name.endswith('copies') else 's'} {_share(share[name])} of a step. {hint}"
            )
    return said


def _precision(found: Profile) -> list[str]:
    flags = hardware.cpu_flags() or frozenset()
    if found.device == "cpu" and found.computed_by == "torch" and found.precision == "fp32" and "amx_bf16" in flags:
        return ["This processor computes bfloat16 in its matrix unit (AMX): --set precision=bf16."]
    return []


def of_prediction(found: Profile) -> list[str]:
    said = []
    decode, model = found.share("decode"), found.share("model")
    if decode >= MOST:
        said.append(
            f"Decoding takes {_share(decode)} of a batch, and predict decodes ahead in "
            f"{found.hardware['cores']} threads: smaller files, or more cores, make it faster; a faster model won't."
        )
    elif model >= MOST:
        said.append(
            f"The model takes {_share(model)} of a batch. tenfold bench measures other runtimes, batch sizes and "
            "exported formats; tenfold export --format onnx-int8 writes one of 8 bits."
        )
    else:
        said.append(
            f"Decoding takes {_share(decode)} of a batch and the model {_share(model)}; predict does one beside the "
            "other."
        )
    if found.operations:
        first = found.operations[0]
        alike = sum(cost.share for cost in found.kinds if cost.name == first.kind)
        said.append(
            f"The slowest node is {first.name} ({first.kind}): {_share(first.share)} of a batch; all {first.kind} "
            f"together {_share(alike)}."
        )
    return said + _phases(found)


def _phases(found: Profile) -> list[str]:
    if not found.phases or not found.phases.get("total"):
        return []
    total = found.phases["total"]
    parts: Sequence[tuple[str, float]] = sorted(
        ((name, value) for name, value in found.phases.items() if name != "total"), key=lambda pair: -pair[1]
    )
    name, value = parts[0]
    rest = ", ".join(f"{n} {_share(v / total)}" for n, v in parts[1:] if v / total >= 0.01)
    return [
        f"Of the {total:.1f} s that the training took, {name} had {_share(value / total)}"
        + (f"; {rest}." if rest else ".")
    ]


def _share(value: float) -> str:
    return percent(max(0.0, value), 0 if value >= 0.095 or value < 0.0005 else 1)
