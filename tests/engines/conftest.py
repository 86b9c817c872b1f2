from __future__ import annotations

import sys
from pathlib import Path

# the tests of the engines share a reference computation
if str(Path(__file__).parent) not in sys.path:
    sys.path.append(str(Path(__file__).parent))
