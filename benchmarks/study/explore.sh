#!/usr/bin/env bash
# The exploration before the study, on development sets only (docs/study.md has its figures): one seed, 6 to 10 minutes a run
# on one core, and 5 minutes for its scores. Run dev_split.py first:
#     python benchmarks/study/dev_split.py ../shared/data runs/dev && bash benchmarks/study/explore.sh
set -euo pipefail
recipe=benchmarks/study/imagenette64.yaml
data=runs/dev

explore() { # name, then options of `ladder pretrain`; 96,000 images each
    local output=runs/explore/$1
    ladder pretrain $recipe --dataset $data/imagenette128 --output "$output" --seed 42 --monitor_steps 250 --monitor_images 1000 \
        "${@:2}"
    ladder evaluate knn --model "$output" --dataset $data/imagenette128
    ladder evaluate linear --model "$output" --dataset $data/imagenette128 --epochs 30
}

transfer() { # name: the tasks on other data sets
    local output=runs/explore/$1
    ladder evaluate segmentation --model "$output" --dataset ../shared/data/camvid --split validation \
        --head upernet --freeze_backbone true --steps 200 --output "$output-camvid"
    ladder evaluate segmentation --model "$output" --dataset $data/pets_trimap \
        --head upernet --freeze_backbone true --steps 200 --output "$output-pets"
    ladder evaluate detection --model "$output" --dataset $data/bccd --steps 200 --output "$output-bccd"
}

# BYOL: its published views, weaker ones, then learning rate and tau, and small batches.
published=(--min_scale 0.08 --max_sigma 2.0)
slow=(--learning_rate 1e-3 --base_momentum 0.99)
explore byol_published --method byol "${published[@]}" "${slow[@]}"
explore byol_slow --method byol "${slow[@]}"
explore byol --method byol
explore byol_faster --method byol --learning_rate 4e-3 --base_momentum 0.95
explore byol_batch32 --method byol "${slow[@]}" --per_device_train_batch_size 32 --max_steps 3000
transfer byol

# The Ladder at BYOL's settings: which levels, which losses, which weights.
both=(--level_losses both both both both --level_weights 0.25 0.25 0.5 1)
last3=(--level_names stage2 stage3 stage4)
explore both_everywhere --method ladder "${both[@]}"
explore both_everywhere_slow --method ladder "${both[@]}" "${slow[@]}"
explore global_234 --method ladder "${last3[@]}" --level_losses global global global --level_weights 0.25 0.5 1
explore global_234_equal --method ladder "${last3[@]}" --level_losses global global global --level_weights 1 1 1
explore global_both_both --method ladder "${last3[@]}" --level_losses global both both --level_weights 0.25 0.5 1
explore global_everywhere --method ladder
for run in both_everywhere global_234 global_234_equal global_both_both global_everywhere; do
    transfer $run
done
