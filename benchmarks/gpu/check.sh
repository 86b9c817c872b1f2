#!/usr/bin/env bash
# What to run first on a machine with a CUDA card: is the CUDA path right, and how fast is it?
#
#   [AIRBENCH=PATH] [SEEDS=3] [PYTHON=python3] bash benchmarks/gpu/check.sh [OUT]
#
# See README.md beside this file for its steps. OUT is benchmarks/gpu/results/<card> where it is left out; in it are
# gpu.json, gpu.txt, race.json, compare.json, compare.png, bench.json, bench.png, export.json, evaluate-tensorrt.json, evaluate-tensorrt-fp16.json,
# profile.txt, profile.json, profile.html and trace.json.gz. CIFAR-10 is found under TENFOLD_DATA, or downloaded.
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
"$python" -m pytest -m cuda tests/engines/torch tests/runtimes -p no:cacheprovider

train() { # NAME SEED OPTIONS…
  local name=$1 seed=$2
  shift 2
  mkdir -p "$work/$name"
  "$python" -m tenfold train cifar10 --recipe sprint --device cuda --seed "$seed" "$@" \
    --out "$work/runs/$name-$seed" --json >"$work/$name/$seed.json"
}
echo "== sprint on CIFAR-10, $seeds seeds, with CUDA graphs and without"
for ((seed = 0; seed < seeds; seed++)); do
  train sprint "$seed"
  train sprint-without-graphs "$seed" --set cuda_graphs=false
done
cards=$("$python" -c 'import torch; print(torch.cuda.device_count())')
if ((cards > 1)); then
  echo "== sprint on $cards cards, a process a card, beside one"
  "$python" -m torch.distributed.run --standalone --nproc-per-node "$cards" -m tenfold train cifar10 --recipe sprint \
    --device cuda --set precision=fp32 --out "$work/runs/cards" --json >"$work/cards.json"
  "$python" -m tenfold train cifar10 --recipe sprint --device cuda --set precision=fp32 --out "$work/runs/card" --json \
    >"$work/card.json"
  "$python" benchmarks/gpu/cards.py "$work/runs/card" "$work/runs/cards" | tee "$out/cards.txt"
fi
"$python" benchmarks/gpu/table.py "$work" "$out"
cat "$out/gpu.txt"

if [ -n "${AIRBENCH:-}" ]; then
  echo "== sprint beside airbench94"
  "$python" benchmarks/race.py tenfold:sprint="$seeds" airbench94="$seeds" --device cuda --airbench "$AIRBENCH" \
    --out "$out/race.json"
fi

echo "== the engines on the card and on this machine's processor"
"$python" -m tenfold compare cifar10 --engines torch,jax,tensorflow,opencl --devices cuda,cpu --recipe quick --seeds 1 \
  --out "$work/compare" || echo "not every engine could be measured"
cp "$work/compare"/compare.{json,png} "$out/" || true

echo "== TensorRT"
run=$work/runs/sprint-0
if "$python" -m tenfold export "$run" --format tensorrt --format tensorrt-fp16 --out "$work/exports" --json \
  >"$out/export.json"; then
  for format in tensorrt tensorrt-fp16; do
    "$python" -m tenfold evaluate "$work/exports/$format" --split test --json \
      >"$out/evaluate-$format.json"
  done
else
  echo "TensorRT could not be measured"
fi

echo "== the run and its exports in every runtime, on the card and on this machine's processor"
"$python" -m tenfold export "$run" --format onnx-fp16 --out "$work/exports" || echo "no artifact in float16"
mapfile -t exports < <(find "$work/exports" -mindepth 2 -maxdepth 2 -name artifact.json)
"$python" -m tenfold bench "$run" "${exports[@]}" --devices cuda,cpu --batch-sizes 1,8,64,256 --out "$work/bench" ||
  echo "not every runtime could be measured"
cp "$work/bench"/bench.{json,png} "$out/" || true

echo "== where a step's time goes"
"$python" -m tenfold profile cifar10 --recipe sprint --device cuda --steps 20 --out "$work/profile" | tee "$out/profile.txt"
cp "$work/profile"/{profile.json,profile.html,trace.json.gz} "$out/"
