"""The format ``torch-export``: PyTorch's own program, torch.export, for any number of images, as model.pt2.

What the model says of itself is the extra file ``tenfold.json``. Nothing in the file is a pickle, and the traces of
Python that torch.export would leave (source files, lines, modules) are taken out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tenfold.engines import base
from tenfold.export.source import Source
from tenfold.recipe import Recipe
from tenfold.runtimes.graph import INPUT
from tenfold.runtimes.torchexport import METADATA

MODEL = "model.pt2"


def write(source: Source, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write the program into ``folder``; the file that is opened, and what to say of how it was made.

    Raises UnsupportedError for a network that the engine torch hasn't got.
    """
    engine = base.load("torch")
    import torch

    from tenfold.engines.torch import build

    manifest = source.bundle.manifest
    architecture = manifest.architecture
    base.check(engine, architecture, Recipe(precision="fp32"), engine.device("cpu"))
    network = build.build(architecture)
    build.load_weights(network, architecture, source.bundle.weights())

    class Served(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.network(pixels)
            return torch.softmax(logits.float() / manifest.temperature, 1)

    pixels = torch.zeros((2, architecture.height, architecture.width, 3), dtype=torch.uint8)
    any_number = {INPUT: {0: torch.export.Dim("N", min=1)}}
    with torch.no_grad():
        program = torch.export.export(Served().eval(), (pixels,), dynamic_shapes=any_number)
    program._example_inputs = None  # they would be a pickle
    for node in program.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
            node.meta.pop(key, None)
    torch.export.save(program, folder / MODEL, extra_files={METADATA: source.texts_json.decode()})
    return MODEL, {"torch": str(torch.__version__)}
