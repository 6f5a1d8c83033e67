#!/usr/bin/env bash
# The exploration before the study, on development sets only (docs/study.md has its figures): one seed, about 6 minutes a run
# on one core. Run dev_split.py first:
#     python benchmarks/study/dev_split.py ../shared/data runs/dev && bash benchmarks/study/explore.sh
set -euo pipefail
recipe=benchmarks/study/imagenette64.yaml
data=runs/dev/imagenette128

explore() { # name, then options of `ladder pretrain`
    local output=runs/explore/$1
    ladder pretrain $recipe --dataset $data --output "$output" "${@:2}"
    ladder evaluate linear --model "$output" --dataset $data --epochs 30
    ladder evaluate knn --model "$output" --dataset $data
}

# 64,000 images each. The baseline's optimizer, learning rate and tau:
explore byol_adamw --method byol --per_device_train_batch_size 128 --max_steps 500 --bf16 false
explore byol_sgd --method byol --per_device_train_batch_size 128 --max_steps 500 \
    --optimizer sgd --learning_rate 0.1 --weight_decay 5e-4 --base_momentum 0.97
explore byol_lars --method byol --per_device_train_batch_size 128 --max_steps 500 \
    --optimizer lars --base_learning_rate 2.0 --weight_decay 1e-6 --base_momentum 0.97
explore byol_fast --method byol --learning_rate 2e-3 --base_momentum 0.97 --bf16 false
explore byol --method byol
# The same with losses at every level:
explore ladder_fast --method ladder --learning_rate 2e-3 --base_momentum 0.97
for run in byol_fast ladder_fast; do
    ladder evaluate segmentation --model runs/explore/$run --dataset ../shared/data/camvid --split validation \
        --head upernet --freeze_backbone true --steps 200 --output runs/explore/$run-frozen
    ladder evaluate segmentation --model runs/explore/$run --dataset ../shared/data/camvid --split validation \
        --head fcn --steps 200 --output runs/explore/$run-tuned
    ladder evaluate detection --model runs/explore/$run --dataset runs/dev/bccd --steps 200
done
