"""Which kind of work an operation is, by its own name and by the names of those that called it."""

from __future__ import annotations

from collections.abc import Sequence

# A part of the step decides: whatever runs inside belongs to it. Asked from the outermost caller in.
PARTS = {
    "data": "data: looking up, waiting",
    "augmentation": "augmentation",
    "optimizer": "optimizer",
    "average": "moving average",
}

# The first that matches an operation, or else one that it was called by, names its kind. PyTorch's names.
PATTERNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("convolution backward", ("_ByProductBackward", "convolution_backward", "ConvolutionBackward")),
    ("convolution forward", ("aten::conv2d", "aten::convolution", "_ByProduct")),
    ("batch norm", ("batch_norm", "BatchNorm")),
    ("activation", ("gelu", "Gelu", "relu", "Relu", "threshold", "silu", "Silu")),
    ("pooling", ("max_pool2d", "MaxPool2D", "avg_pool2d", "AvgPool2D", "aten::amax", "Amax", "MeanBackward")),
    ("attention", ("scaled_dot_product", "ScaledDotProduct")),
    ("dense layers", ("aten::linear", "AddmmBackward", "MmBackward", "aten::addmm", "aten::matmul")),
    ("layer norm", ("layer_norm", "LayerNorm")),
    ("loss", ("cross_entropy", "nll_loss", "NllLoss", "log_softmax", "LogSoftmax")),
    ("casts and copies", ("aten::_to_copy", "aten::to", "ToCopyBackward", "aten::copy_", "aten::clone", "Memcpy")),
)
DATA = PARTS["data"]
COMPILED = "compiled step"  # all of it: see engines/recording.py
OTHER = "other operations"


def kind(name: str, callers: Sequence[str] = ()) -> str:
    """The kind of the operation called ``name``; ``callers`` from the innermost out."""
    names = [name, *callers]
    for part in reversed(names):
        if part in PARTS:
            return PARTS[part]
    if name == COMPILED:
        return COMPILED
    for at in names:
        for found, patterns in PATTERNS:
            if any(pattern in at for pattern in patterns):
                return found
    return OTHER
