"""Classification: a transformers image classifier, fine-tuned as a whole from the backbone."""

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import default_collate

from ..errors import UserError
from ..evaluation import splits as splits_module
from ..evaluation.image_classification.fine_tuning import ChosenImages, centre_scores, optimizer_steps, readable_images
from ..evaluation.image_classification.task import (
    ClassificationTask,
    classification_metrics,
    classification_protocol,
    number_labels,
    open_classification,
    stratified_split,
)
from ..evaluation.image_transforms import RandomCropTransform
from ..evaluation.task_run import Outcome, TaskRun
from ..evaluation.tuning import BATCH_NORM, fine_tune, training_loader

TASK = "finetune_classification"


def finetune_classification(run: TaskRun) -> Outcome:
    """Fine-tune a classifier and score it; the classifier is left in `run.trained`."""
    accelerator = run.accelerate(run.options.mixed_precision)
    task, options, splits = open_classification(run), run.options, run.splits
    if splits_module.is_streaming(splits.fit) or splits_module.is_streaming(splits.score):
        raise UserError("finetune needs its data on disk: do not stream it")
    labels, score_labels = number_labels(
        run, task.index, splits.fit[task.label_column], splits.score[task.label_column]
    )
    used, _ = stratified_split(labels, options.label_fraction, run.seed, at_least=1)
    used = readable_images(task, splits.fit, used, splits.fit_split)
    scored = readable_images(task, splits.score, torch.arange(len(score_labels)), splits.score_split)
    score_labels = score_labels[scored]
    accuracies: dict[float, float] = {}
    rates = options.learning_rates
    held, kept = stratified_split(labels[used], options.holdout_fraction, run.seed, at_least=0)
    if len(rates) > 1 and len(held):
        for rate in rates:
            network = _train(task, labels, used[kept], rate)
            scores = _scores(network, task, splits.fit, used[held])
            accuracies[rate] = (scores.argmax(1) == labels[used[held]]).double().mean().item()
        chosen = max(sorted(rates), key=lambda rate: (accuracies[rate], -rate))
    else:
        chosen = sorted(rates)[len(rates) // 2]
    network = _train(task, labels, used, chosen)
    scores = _scores(network, task, splits.score, scored)
    run.trained = network.cpu().eval()
    return Outcome(
        TASK,
        {"fine_tuned": classification_metrics(scores, score_labels)},
        len(used),
        len(score_labels),
        task.index.names,
        protocol=classification_protocol(
            task,
            features=f"{type(network).__name__} of transformers, fine-tuned as a whole",
            chosen_learning_rate=chosen,
            holdout_accuracy={str(rate): value for rate, value in accuracies.items()},
            steps=_steps(options, len(used), accelerator),
            global_batch=options.batch_size * accelerator.num_processes,
        ),
    )


def make_classifier(task: ClassificationTask) -> Any:
    """Make transformers' classifier on a copy of the backbone; its last layer starts at zero.

    What the backbone does not have (a final norm of some families) starts as transformers initialises it.

    Raises:
        UserError: transformers has no classifier for this backbone.
    """
    from transformers import TimmWrapperConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

    backbone: Any = task.backbone.backbone
    config = backbone.config
    if config.model_type == "timm_wrapper":
        config = TimmWrapperConfig(architecture=config.architecture, model_args=dict(config.model_args))
    config = copy.deepcopy(config)
    if type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise UserError(f"transformers has no image classifier for {config.model_type!r}; use evaluate semi_supervised")
    config.num_labels = len(task.index.names)
    config.id2label = dict(enumerate(task.index.names))
    config.label2id = {name: number for number, name in enumerate(task.index.names)}
    kind = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)]
    model = (kind[0] if isinstance(kind, tuple) else kind)(config)
    given = backbone.state_dict()
    body = getattr(model, model.base_model_prefix)
    own = body.state_dict()
    prefix = f"{model.base_model_prefix}."
    taken = {name.removeprefix(prefix): value for name, value in given.items()}
    taken = {name: value for name, value in taken.items() if name in own and own[name].shape == value.shape}
    # timm's networks hold their classifier inside.
    new = {id(parameter) for layer in _last_layers(model) for parameter in layer.parameters()}
    matrices = [name for name, value in body.named_parameters() if value.ndim > 1 and id(value) not in new]
    absent = [name for name in matrices if name not in taken and "mask_token" not in name]
    if absent:
        raise UserError(f"{type(model).__name__} has weights that the backbone lacks, such as {absent[0]}")
    body.load_state_dict(taken, strict=False)
    for layer in _last_layers(model):
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    return model.requires_grad_(True)


def _last_layers(model: Any) -> list[nn.Module]:
    """The layers that give the scores: one, or two in networks of timm that were distilled."""
    network = getattr(model, "timm_model", None)
    if network is not None:
        found = network.get_classifier()
        return list(found) if isinstance(found, tuple) else [found]
    return [[module for module in model.modules() if isinstance(module, nn.Linear)][-1]]


def _steps(options: Any, images: int, accelerator: Any) -> int:
    steps = optimizer_steps(options, images, accelerator)
    return steps if options.max_steps is None else min(steps, options.max_steps)


def _train(task: ClassificationTask, labels: Tensor, indices: Tensor, rate: float) -> Any:
    """Fine-tune a new classifier on the chosen images."""
    run = task.run
    options, accelerator = run.options, run.accelerator
    steps = _steps(options, len(indices), accelerator)
    transform = RandomCropTransform(task.settings, options.min_crop_scale, options.flip)
    images = ChosenImages(task, run.splits.fit, indices, labels, transform)
    loader = training_loader(images, options, steps, run.seed, accelerator, default_collate)
    with run.seeded():
        network = make_classifier(task)
    frozen = [module for module in network.modules() if isinstance(module, BATCH_NORM)]
    if options.batch_norm == "sync" and accelerator.num_processes > 1:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    head = [parameter for layer in _last_layers(network) for parameter in layer.parameters()]
    inside = {id(parameter) for parameter in head}
    body = [parameter for parameter in network.parameters() if id(parameter) not in inside]
    groups = [
        {"params": [p for p in body if p.ndim > 1], "lr": rate, "weight_decay": options.weight_decay},
        {"params": [p for p in body if p.ndim <= 1], "lr": rate, "weight_decay": 0.0},
        {"params": head, "lr": rate * options.head_learning_rate_factor, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate)
    model, optimizer = accelerator.prepare(network, optimizer)
    warm = max(1, round(options.warmup * steps))

    def loss_of(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        if options.batch_norm == "frozen":
            for module in frozen:
                module.eval()
        pixels, classes = (part.to(accelerator.device, non_blocking=True) for part in batch)
        return F.cross_entropy(net(pixel_values=pixels).logits.float(), classes)

    fine_tune(
        model,
        loader,
        loss_of,
        optimizer,
        lambda step: min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / steps)),
        accelerator,
        max_gradient_norm=1.0,
        name=f"fine-tuning at {rate:g}",
    )
    return network


def _scores(network: Any, task: ClassificationTask, dataset: Any, indices: Tensor) -> Tensor:
    return centre_scores(network, lambda pixels: network(pixel_values=pixels).logits, task, dataset, indices)
