"""The text of `ladder --help` besides the commands and the options."""

OVERVIEW = """usage: ladder COMMAND ...

Pretrains image backbones without labels, with a loss at every stage (Ladder Siamese Network, arXiv 2211.13844), and
publishes them as plain transformers models.

commands:
{commands}

M, CHECKPOINT: a run's folder, its checkpoint-N or pretraining folder, an exported folder, or USER/NAME[@REVISION] on
the Hub.
D: digits, a Hub data set, a folder of images, Parquet files or WebDataset shards.
RECIPE: a YAML file, or the name of one that comes with the package: {recipes}.

options of `ladder pretrain`, all of them also fields of a recipe (`ladder COMMAND --help` for the other commands):
"""

PRETRAIN = """Pretrains a backbone. Every field of the recipe can be given here too (--max_steps 40 or --max-steps 40)
and wins over it. Without a recipe, a plan is made from the images and the machine, printed, and written as recipe.yaml
to the run's folder; whatever is given here wins over it. The same command again goes on from the newest whole
checkpoint in the output folder. On many GPUs: accelerate launch -m ladder_training pretrain RECIPE.yaml ..."""

# Fields of transformers' TrainingArguments, written out here so that --help does not import transformers.
COMMON_INHERITED = {
    "max_steps": "Optimizer steps; wins over num_train_epochs. Also --steps.",
    "num_train_epochs": "Passes over the images. Also --epochs.",
    "per_device_train_batch_size": "Images per device and micro-batch. Also --batch_size.",
    "gradient_accumulation_steps": "Micro-batches per optimizer step.",
    "learning_rate": "Peak learning rate; default: the optimizer's (lars .45, sgd .05, adamw .002). Also --lr.",
    "weight_decay": "Weight decay; norms and biases take none.",
    "lr_scheduler_type": "Shape of the learning rate.",
    "warmup_steps": "Steps of linear warm-up; below 1: a share of the run.",
    "bf16": "Mixed precision; fp16 likewise.",
    "seed": "Seed of the weights, the views and the order of the images.",
    "save_steps": "Steps between checkpoints.",
    "save_total_limit": "Checkpoints that are kept; 0: all; -1: two, or all with save_strategy epoch.",
    "logging_steps": "Steps between lines of the log.",
    "dataloader_num_workers": "Processes that decode and augment images. Also --workers.",
    "report_to": "tensorboard, wandb, trackio, ... or none.",
    "torch_compile": "Compile the model.",
}

PRETRAIN_END = """
the most used of the inherited options (--help-all lists every field of transformers' TrainingArguments):
{common}
""".format(common="\n".join(f"  --{name:<30} {text}" for name, text in COMMON_INHERITED.items()))
