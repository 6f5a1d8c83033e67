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

detection() { # name, learning rate
    for set in bccd fruit; do
        ladder evaluate detection --model runs/explore/$1 --dataset $data/$set --steps 200 --learning_rate $2 \
            --mixed_precision bf16 --output runs/explore/$1-$set-$2
    done
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
explore global_234 --method ladder "${last3[@]}" --level_losses global global global --level_weights 0.25 0.5 1
explore global_234_equal --method ladder "${last3[@]}" --level_losses global global global --level_weights 1 1 1
explore global_both_both --method ladder "${last3[@]}" --level_losses global both both --level_weights 0.25 0.5 1
explore global_everywhere --method ladder
explore global_everywhere_faster --method ladder --learning_rate 3e-3 --base_momentum 0.95
explore both_everywhere_slow --method ladder "${both[@]}" "${slow[@]}"
explore local_both --method ladder --level_losses local both global global --level_weights 0.25 0.25 0.5 1
for run in both_everywhere global_234 global_234_equal global_both_both global_everywhere global_everywhere_faster local_both; do
    transfer $run
done

# Detection: which learning rate tells a pretrained backbone from an untrained one?
python - <<'PYTHON'
from transformers import ResNetBackbone, ResNetConfig, set_seed
from ladder_training.models.reference import image_processor

stages = ["stage1", "stage2", "stage3", "stage4"]
config = ResNetConfig(embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[1] * 4, layer_type="basic", out_features=stages)
for seed, name in ((0, "untrained"), (42, "untrained42")):
    set_seed(seed)
    ResNetBackbone(config).save_pretrained(f"runs/explore/{name}")
    image_processor(64).save_pretrained(f"runs/explore/{name}")
PYTHON
for rate in 0.02 0.1; do
    detection untrained $rate
    detection byol $rate
done
transfer untrained
for run in untrained byol global_everywhere; do
    ladder evaluate segmentation --model runs/explore/$run --dataset ../shared/data/camvid --split validation --head upernet \
        --freeze_backbone true --steps 200 --learning_rate 0.1 --output runs/explore/$run-camvid-0.1
    ladder evaluate segmentation --model runs/explore/$run --dataset $data/pets_trimap --head upernet \
        --freeze_backbone true --steps 200 --learning_rate 0.1 --output runs/explore/$run-pets-0.1
done

# The second segmentation head. The runs are those of the two-seed ablation (docs/study.md has its command).
for run in untrained untrained42 byol ladder both_everywhere; do
    model=docs/study/ablation/runs/$run/seed-42
    [[ $run == untrained* ]] && model=runs/explore/$run
    ladder evaluate segmentation --model $model --dataset ../shared/data/camvid --split validation --head fcn \
        --freeze_backbone true --steps 200 --learning_rate 0.1 --output runs/explore/$run-camvid-fcn
    ladder evaluate segmentation --model $model --dataset $data/pets_trimap --head fcn \
        --freeze_backbone true --steps 200 --learning_rate 0.1 --output runs/explore/$run-pets-fcn
done

# Does detection see pretraining at all? The runs are those of the ablation at 96 pixels (docs/study.md has its command): other
# seeds of the fine-tuning, a frozen backbone, and the set whose objects are like Imagenette's.
ablation=docs/study/ablation96/runs
for run in byol ladder; do
    for seed in 1 2; do
        ladder evaluate detection --model $ablation/$run/seed-42 --dataset $data/bccd --steps 200 --learning_rate 0.1 \
            --mixed_precision bf16 --seed $seed --output runs/explore/$run-bccd-$seed
    done
done
for run in untrained42 byol ladder; do
    model=$ablation/$run/seed-42
    [[ $run == untrained42 ]] && model=runs/explore/untrained42
    for set in bccd fruit; do
        ladder evaluate detection --model $model --dataset $data/$set --steps 200 --learning_rate 0.1 --mixed_precision bf16 \
            --freeze_backbone true --output runs/explore/$run-$set-frozen
    done
    ladder evaluate detection --model $model --dataset $data/pets_head --steps 400 --learning_rate 0.1 --mixed_precision bf16 \
        --output runs/explore/$run-pets_head-400
done

# A detection set of natural images: boxes around the whole animals of the Pets trimaps.
python benchmarks/study/pets_boxes.py $data/pets_trimap $data/pets_body
for run in untrained42 byol ladder stage_wise; do
    model=$ablation/$run/seed-42
    [[ $run == untrained42 ]] && model=runs/explore/untrained42
    body=(--model $model --dataset $data/pets_body --steps 300 --learning_rate 0.1 --mixed_precision bf16)
    ladder evaluate detection "${body[@]}" --output runs/explore/$run-body
    [[ $run == stage_wise ]] && continue
    ladder evaluate detection "${body[@]}" --freeze_backbone true --output runs/explore/$run-body-frozen
    # Segmentation heads that are trained three times as long.
    head=(--model $model --head upernet --freeze_backbone true --steps 600 --learning_rate 0.1)
    ladder evaluate segmentation "${head[@]}" --dataset ../shared/data/camvid --split validation --output runs/explore/$run-camvid-600
    ladder evaluate segmentation "${head[@]}" --dataset $data/pets_trimap --output runs/explore/$run-pets-600
done
ladder evaluate detection --model runs/explore/untrained42 --dataset $data/pets_body --steps 300 --learning_rate 0.1 \
    --mixed_precision bf16 --freeze_backbone true --seed 1 --output runs/explore/untrained42-body-frozen-1

# Deeper and narrower.
deep=(--backbone_config '{model_type: resnet, layer_type: basic, embedding_size: 16, hidden_sizes: [16, 32, 64, 128], depths: [3, 3, 3, 3]}')
explore deep_byol --method byol "${deep[@]}"
explore deep_global_everywhere --method ladder "${deep[@]}"
