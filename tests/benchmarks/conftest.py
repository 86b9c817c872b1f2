from __future__ import annotations

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# The programs there are run as files and import their neighbours; so do these tests.
for folder in (BENCHMARKS, BENCHMARKS / "contestants", BENCHMARKS / "serving", Path(__file__).parent):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
