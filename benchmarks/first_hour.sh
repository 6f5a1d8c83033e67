#!/usr/bin/env bash
# The first hour with the package, by the clock: from an unlabelled folder of images to a backbone that was evaluated,
# embedded, exported and fine-tuned. Every command is what a new user types; its exit code and its time are printed, and
# at the end the kNN accuracy of every stage beside that of the untrained network.
#
#   benchmarks/first_hour.sh [DATA [FOLDER]]
#
# DATA: a labelled data set with a training and a test split (default: ../shared/data/imagenette128, else digits). The
# folder to pretrain on gets the images of its training split, without their labels.
# FOLDER: gets everything that is made (default: a new temporary folder).
#
# Environment: LADDER, the command (default: ladder of .venv, else of PATH). IMAGES, most training images (default 5000).
# STEPS, the length of pretraining: the time box (default: what the planner says). TUNING, words for `ladder finetune`.
# CLONE=1 first installs a fresh clone of this repository in FOLDER and uses its command, and times that too.
set -uo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
default=$here/../shared/data/imagenette128
[ -d "$default" ] || default=digits
data=${1:-$default}
work=${2:-$(mktemp -d)}
mkdir -p "$work"
table=$work/first_hour.tsv
: >"$table"
failed=0

timed() { # NAME COMMAND...: run a command with its output in FOLDER/NAME.log, and note its exit code and seconds
    local name=$1 began code
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    began=$(date +%s)
    "$@" >"$work/$name.log" 2>&1
    code=$?
    printf '%s\t%s\t%s\n' "$name" "$code" "$(($(date +%s) - began))" >>"$table"
    tail -n 8 "$work/$name.log"
    [ "$code" -eq 0 ] || failed=1
}

if [ "${CLONE:-0}" = 1 ]; then
    timed clone git clone --quiet "$here" "$work/clone"
    timed install make -C "$work/clone"
    LADDER=$work/clone/.venv/bin/ladder
elif [ -x "$here/.venv/bin/ladder" ]; then
    LADDER=${LADDER:-$here/.venv/bin/ladder}
fi
LADDER=${LADDER:-ladder}
python=$(dirname "$(command -v "$LADDER")")/python

echo "data: $data; everything is written to $work"
timed folder "$python" - "$data" "$work/photos" "${IMAGES:-5000}" <<'PYTHON'
import io
import sys
from pathlib import Path

from PIL import Image

from ladder_training import load_image_stream
from ladder_training.data.columns import check_image_column, without_decoding

name, folder, most = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
images = load_image_stream(name, split="train")
column = check_image_column(images, None)
folder.mkdir(parents=True, exist_ok=True)
images = without_decoding(images.shuffle(seed=0), column)
for number, row in enumerate(images.select(range(min(most, len(images))))):
    value = row[column]
    content = value["bytes"] or Path(value["path"]).read_bytes()
    kind = Image.open(io.BytesIO(content)).format.lower()
    (folder / f"{number:06d}.{kind}").write_bytes(content)
print(f"{number + 1} images, without labels")
PYTHON

run=$work/run
# shellcheck disable=SC2086
timed pretrain "$LADDER" pretrain --dataset "$work/photos" --output "$run" ${STEPS:+--steps $STEPS} --disable_tqdm
timed evaluate "$LADDER" evaluate knn --model "$run" --dataset "$data"
timed embed "$LADDER" embed --model "$run" --dataset "$work/photos" --output "$work/embeddings.parquet"
timed export "$LADDER" export "$run" --format transformers --output "$work/exported"
# shellcheck disable=SC2086
timed finetune "$LADDER" finetune classification --model "$run" --dataset "$data" --output "$work/tuned" ${TUNING:-}

printf '\n%-10s %4s %9s\n' command exit seconds
while IFS=$'\t' read -r name code seconds; do printf '%-10s %4s %9s\n' "$name" "$code" "$seconds"; done <"$table"
printf '\nkNN, pretrained beside untrained:\n'
grep -E '^ |^(stage|mean|all)' "$work/evaluate.log" || true
exit "$failed"
