"""Runs a notebook from top to bottom in a fresh kernel and an empty folder, and keeps its outputs: `make notebook`.

The outputs are written beside the sources, whole or not at all, and only where no cell failed. What differs from run to
run without saying anything (times of cells, versions of the kernel) is left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tenfold.paths import write_whole

QUICKSTART = Path(__file__).with_name("quickstart.ipynb")
TIMEOUT = 600  # seconds a cell may take
# What would show in the outputs where it is set.
UNSET = ("TENFOLD_RUNS", "FORCE_COLOR", "CLICOLOR_FORCE")


def execute(source: Path, folder: Path, timeout: int = TIMEOUT) -> Any:
    """The notebook with the outputs of a run in ``folder``. Raises nbclient's CellExecutionError where a cell fails and
    CellTimeoutError where one takes longer than ``timeout`` seconds."""
    notebook = nbformat.read(source, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # it warns that it listens on this machine's own address
    )
    environment = {name: value for name, value in os.environ.items() if name not in UNSET}
    client.execute(env={**environment, "IPYTHONDIR": str(folder / ".ipython"), "JUPYTER_PLATFORM_DIRS": "1"})
    return tidied(notebook)


def tidied(notebook: Any) -> Any:
    """The notebook without what differs from run to run; changed in place."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = {}
    return notebook


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a notebook from top to bottom and keep its outputs.")
    parser.add_argument("notebook", nargs="?", type=Path, default=QUICKSTART)
    path = parser.parse_args().notebook
    with tempfile.TemporaryDirectory(prefix="tenfold-notebook-") as folder:
        try:
            notebook = execute(path, Path(folder))
        except CellExecutionError as error:
            print(error, file=sys.stderr)
            return 1
    text = nbformat.writes(notebook) + "\n"
    write_whole(path, text)
    print(f"{path}: {len(text) / 1000:,.0f} kB with its outputs")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
