"""The format ``tensorrt``: an engine of NVIDIA's TensorRT for the card that is here, built through ONNX Runtime.

    tensorrt/
      model.onnx    the bundle's graph, pixels cast first: TensorRT takes bytes, and computes with none
      engine.onnx   one node, EPContext, with the engine inside: ONNX Runtime opens it with its TensorRT provider

``tensorrt_fp16`` lets TensorRT compute in float16. See ``runtimes.tensorrt`` for which engines are opened.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tenfold.export import fold
from tenfold.export.source import Source
from tenfold.runtimes import batches
from tenfold.runtimes import tensorrt as runtime
from tenfold.runtimes.graph import INPUT

MODEL = "model.onnx"
FLOAT = 1  # TensorProto's number of the type


def write(source: Source, folder: Path, *, half: bool = False) -> tuple[str, dict[str, Any]]:
    """Write graph and engine into ``folder``; the file that is opened, and what to say of how they were made.

    Raises UnsupportedError where TensorRT can't be had here or can't hold all of the network.
    """
    runtime.require()
    onnx, model = fold.load(source.bundle.model(), "Exporting to tensorrt")
    cast_first(onnx, model.graph)
    place = runtime.here()
    onnx.helper.set_model_props(model, {**source.texts, runtime.BUILT_FOR: place.to_json()})
    onnx.checker.check_model(model, full_check=True)
    path = folder / MODEL
    path.write_bytes(model.SerializeToString(deterministic=True))
    geometry = source.bundle.manifest.geometry
    sizes = batches.Sizes(geometry.height, geometry.width, len(source.bundle.manifest.classes))
    runtime.build(path, sizes, half=half)
    return MODEL, {
        "precision": "float16 where it is faster" if half else "float32",
        "batch": [1, batches.most(sizes)],
        "built_for": asdict(place),
    }


def cast_first(onnx: Any, graph: Any) -> None:
    """Makes the pixels float32 before anything else is done with them. What moved bytes moves numbers then, and the
    casts that were there change nothing."""
    name = f"{INPUT}.float"
    for node in graph.node:
        node.input[:] = [name if taken == INPUT else taken for taken in node.input]
    del graph.value_info[:]
    graph.node.insert(0, onnx.helper.make_node("Cast", [INPUT], [name], name=name, to=FLOAT))
