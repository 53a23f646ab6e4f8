#!/bin/sh
# Run all checks and benchmarks that need a GPU, the most important first. Each part has a time limit.
# Usage: sh scripts/on_a_gpu.sh FOLDER [FOLDER_OF_CIFAR10]. Writes tables, JSON and runs into FOLDER.
set -u
out=${1:?a folder for the results}
data=${2:-data}
python=${PYTHON:-python}
bench="$python scripts/bench.py"
mkdir -p "$out"
nvidia-smi > "$out/nvidia-smi.txt"

# 1. Captured turns must equal eager ones bit by bit (with deterministic algorithms); bf16 and fused
# convolutions must come close to fp32.
timeout 300 $bench check --bitwise engine.fold=never engine.deterministic=true \
  > "$out/check_graphs.md"
timeout 200 $bench check --one "engine=graphs engine.precision=bf16" \
  --other "engine=eager engine.precision=fp32 engine.fold=never" > "$out/check_bf16.md"

# 2. Time SNDCGAN, then ResNet and BigGAN, next to the step of other programs.
timeout 300 $bench train --arch sndcgan --reg none,cr,gp,icr --engine eager,graphs --precision bf16 \
  --rounds 5 --json "$out/sndcgan.json" --markdown "$out/sndcgan.md"
timeout 300 $bench train --arch resnet_sngan,resnet --reg none,cr,icr --engine graphs --precision bf16 \
  --rounds 3 --json "$out/resnet.json" --markdown "$out/resnet.md" optimizer.n_dis=5
timeout 300 $bench train --arch biggan_lite --reg none,cr,icr --engine graphs --precision bf16 --rounds 3 \
  --steps-per-round 20 --json "$out/biggan.json" --markdown "$out/biggan.md" optimizer.n_dis=5

# 3. Time the parts, compiled networks in graphs, several runs on the device, an evaluation.
timeout 120 $bench micro --json "$out/micro.json" --markdown "$out/micro.md"
timeout 300 $bench train --arch sndcgan --reg none,icr --engine compile,graphs --precision bf16 \
  --against none --json "$out/compiled.json" --markdown "$out/compiled.md" engine.compile=true
timeout 240 $bench share --k 1,2,4 --steps 2000 --warm-up 200 > "$out/share.md"
timeout 120 $bench eval --extractor inception --n 10000 --batch-size 250 > "$out/eval.md"

# 4. Train a row of the papers' tables as far as the time allows; the same line resumes it.
for regularizer in icr none; do
  timeout "${MINUTES:-20}m" $python -m crgan_cli train "experiment=${regularizer}_cifar10_sndcgan" \
    "data_root=$data" "out=$out/$regularizer" metrics=demo metrics.num_samples=10000 metrics.every=20000
done
$python -m crgan_cli report "$out/icr" "$out/none" --out "$out/report"
