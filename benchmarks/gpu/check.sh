#!/usr/bin/env bash
# What to run first on a machine with a CUDA card: is the CUDA path right, and how fast is it?
#
#   bash benchmarks/gpu/check.sh [OUT]
#
# 1. the tests marked cuda: same logits and first step as on the CPU, resume, out-of-memory, mixed precision
# 2. the recipe sprint on CIFAR-10 (found under TENFOLD_DATA, or downloaded), SEEDS times (default 3), each a process
#    of its own
# 3. a table of seconds, images/s, memory and accuracy: OUT/gpu.json and OUT/gpu.txt
#
# OUT is benchmarks/gpu/results/<card> where it is left out. PYTHON names the interpreter (default: .venv's, else python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
seeds=${SEEDS:-3}
card=$("$python" - <<'P'
import re, sys, torch
if not torch.cuda.is_available():
    sys.exit("No CUDA device here: this check needs one.")
print(re.sub(r"[^A-Za-z0-9]+", "-", torch.cuda.get_device_name(0)).strip("-").lower())
P
)
out=${1:-benchmarks/gpu/results/$card}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "== the tests marked cuda"
"$python" -m pytest -m cuda tests/engines/torch -p no:cacheprovider

echo "== sprint on CIFAR-10, $seeds seeds"
for ((seed = 0; seed < seeds; seed++)); do
  "$python" -m tenfold train cifar10 --recipe sprint --device cuda --seed "$seed" --out "$work/$seed" --json \
    >"$work/$seed.json"
done
"$python" benchmarks/gpu/table.py "$work" "$out"
cat "$out/gpu.txt"
