#!/usr/bin/env bash
# Everything that needs a CUDA GPU, in under ten minutes, into one folder:
#
#     benchmarks/gpu.sh [--output gpu-results] [--data ../shared/data] [--minutes 1.5] [--rehearse]
#
# - tests.txt          tests marked cuda: equivalences, resuming, mixed precision, compile, shared batch norm, evaluation
# - step.json          a training step against the bare limit, lightly and byol-pytorch, with peak memory: R18 at 96, R50 at 224
# - end_to_end.json    from JPEG files to optimizer steps, against lightly with its own loader
# - features.json      embedding against plain transformers and torchvision
# - claim/             ResNet-18 on Imagenette at 128 pixels: BYOL and Ladder, as many passes as fit into --minutes each, kNN, linear
# - performance.md     the tables; machine.txt what they ran on; times.txt the seconds of each part
#
# --rehearse runs the same on a CPU with the smallest settings, to see that every part works; its numbers mean nothing.
# A part that fails is named at the end, and the others run all the same. The exit code is the number of parts that failed.
set -uo pipefail
cd "$(dirname "$0")/.."

OUTPUT=gpu-results DATA=../shared/data MINUTES=1.5 REHEARSE=""
while [ $# -gt 0 ]; do
  case "$1" in
    --output) OUTPUT=$2; shift 2 ;;
    --data) DATA=$2; shift 2 ;;
    --minutes) MINUTES=$2; shift 2 ;;
    --rehearse) REHEARSE=yes; shift ;;
    *) echo "gpu.sh: unknown option $1" >&2; exit 64 ;;
  esac
done
PYTHON=${PYTHON:-.venv/bin/python}
if [ -z "$REHEARSE" ] && ! "$PYTHON" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
  echo "gpu.sh: torch finds no CUDA GPU; --rehearse tries the script on a CPU" >&2
  exit 64
fi

mkdir -p "$OUTPUT/json"
: >"$OUTPUT/times.txt"
FAILED=()
# part NAME SECONDS COMMAND...: run a part with a time limit, keep what it prints, and note how long it took.
part() {
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  if [ -n "$REHEARSE" ]; then limit=$((10 * limit)); fi # a CPU is slower, and may be shared
  echo "== $name"
  if ! timeout "$limit" "$@" >"$OUTPUT/$name.txt" 2>&1; then
    FAILED+=("$name")
    tail -n 5 "$OUTPUT/$name.txt"
  fi
  echo "$name $((SECONDS - start)) s" | tee -a "$OUTPUT/times.txt"
}

if [ -n "$REHEARSE" ]; then
  export LADDER_CUDA_REHEARSAL=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
  DEVICE=cpu SMALL=(--quick) PRECISION=(--use_cpu true) CLAIM_STEPS=2 SIZE=32 BATCH=8
  CLAIM_EVALUATION=(--image_size 32) CLAIM_DATA=digits WORKERS=0
else
  DEVICE=cuda SMALL=() PRECISION=(--bf16 true) CLAIM_STEPS="" SIZE=128 BATCH=256
  CLAIM_EVALUATION=() CLAIM_DATA=$DATA/imagenette128 WORKERS=$(nproc)
fi
# The first lines of nvidia-smi tell the GPU and its driver.
{ "$PYTHON" -c "import platform, torch; print(platform.platform()); print('torch', torch.__version__, 'CUDA', torch.version.cuda)"
  nvidia-smi 2>/dev/null || echo "no nvidia-smi"; } >"$OUTPUT/machine.txt"

part tests 150 "$PYTHON" -m pytest -q tests/cuda
part step 100 "$PYTHON" benchmarks/step.py --device $DEVICE "${SMALL[@]}" --json "$OUTPUT/json/step.json"
part end_to_end 90 "$PYTHON" benchmarks/end_to_end.py --device $DEVICE --workers "$WORKERS" --rounds 2 --steps 15 \
  --count 960 "${SMALL[@]}" --json "$OUTPUT/json/end_to_end.json"
part features 40 "$PYTHON" benchmarks/features.py --device $DEVICE --count 240 --batch-size 64 --rounds 2 "${SMALL[@]}" \
  --json "$OUTPUT/json/features.json"

# The claim: the same number of steps for both methods, measured for the Ladder, whose steps are the longer ones.
RECIPE=benchmarks/study/gpu_claim.yaml
if [ -z "$CLAIM_STEPS" ]; then
  part claim-steps 90 "$PYTHON" benchmarks/probe_steps.py --recipe $RECIPE --dataset "$CLAIM_DATA" --minutes "$MINUTES" \
    --batch-size $BATCH --workers "$WORKERS" --output "$OUTPUT/claim/steps"
  CLAIM_STEPS=$(cat "$OUTPUT/claim/steps" 2>/dev/null || echo 300)
fi
for method in byol ladder; do
  part "claim-$method" 200 "$PYTHON" -m ladder_training pretrain $RECIPE --method $method --max_steps "$CLAIM_STEPS" \
    --image_size $SIZE --dataset "$CLAIM_DATA" --per_device_train_batch_size $BATCH \
    --dataloader_num_workers "$WORKERS" --output "$OUTPUT/claim/$method" "${PRECISION[@]}"
  for task in knn linear; do
    part "claim-$method-$task" 90 "$PYTHON" -m ladder_training evaluate $task --model "$OUTPUT/claim/$method" \
      --dataset "$CLAIM_DATA" --output "$OUTPUT/claim/$method" --device $DEVICE "${CLAIM_EVALUATION[@]}"
  done
done
part page 20 "$PYTHON" benchmarks/page.py "$OUTPUT/json" --output "$OUTPUT/performance.md"

echo "$SECONDS s in all; everything lies in $OUTPUT"
if [ ${#FAILED[@]} -gt 0 ]; then
  echo "failed: ${FAILED[*]} (see the .txt files)" >&2
fi
exit ${#FAILED[@]}
