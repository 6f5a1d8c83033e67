"""The plan of a comparison: methods, seeds, the recipe of every run, and the evaluations."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.fields import check_values, unknown_name
from ..config.options import METHODS
from ..config.recipe import ALIASES, Recipe, ResolvedRecipe, all_fields, read_recipe, resolve
from ..config.values import read_mapping
from ..errors import UserError
from .cells import PRETRAIN, Cells
from .contents import Contents
from .evaluations import Evaluation, planned_evaluations
from .fingerprints import run_fingerprint
from .given_weights import SEED, WEIGHTS, given_fingerprint, given_folder
from .grid import Stability, planned_stability
from .options import CompareOptions

RANDOM = "random"
_LEVEL = re.compile(r"^(\w+)\.(global|local|region|both)$")
_NAME = re.compile(r"^\w[\w.+-]*$")
# The comparison itself sets these fields, so a variant cannot.
_NOT_IN_VARIANTS = ("seed", "output")


@dataclass(frozen=True)
class Method:
    """One column of the table.

    Attributes:
        name: As the user gave it; also the name of its folder.
        changes: Fields of the recipe that the method changes: name -> value.
        trained: False for the untrained network.
        weights: Folder of finished backbones that are only scored, with `{seed}` for the seed; None: trained here.
    """

    name: str
    changes: dict[str, Any]
    trained: bool = True
    weights: str | None = None

    @property
    def trained_here(self) -> bool:
        """Whether the comparison itself pretrains this method."""
        return self.trained and self.weights is None


@dataclass
class Plan:
    """Everything that the parts of a comparison need. It can be pickled and sent to another process.

    Attributes:
        name: Name of the recipe.
        base: The recipe with the changes of the command line. Each method sets its own `method`.
        folder: Folder of cells, runs, table and figures.
        methods: Methods in the order of the table, the baseline first.
        seeds: Seeds in the order of work.
        evaluations: Evaluations, each made for every method and seed.
        stability: The grid of short runs, or None.
        gradients: Whether to measure the levels' shares in the gradients.
        keep_weights: Whether to keep checkpoint-N folders.
        redo: Whether to replace cells that were made with other settings.
        threads: Threads of every process; None leaves torch's default.
        notes: Remarks that the table must show.
        contents: What the data sets and weights hold.
        fingerprints: Cache of the runs' fingerprints, by method and seed.
    """

    name: str
    base: Recipe
    folder: Path
    methods: list[Method]
    seeds: list[int]
    evaluations: list[Evaluation]
    stability: Stability | None = None
    gradients: bool = True
    keep_weights: bool = False
    redo: bool = False
    threads: int | None = None
    notes: list[str] = field(default_factory=list)
    contents: Contents = field(default_factory=Contents, repr=False)
    fingerprints: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict, repr=False)

    @property
    def baseline(self) -> Method:
        """The method that the others are compared with."""
        return self.methods[0]

    @property
    def grid(self) -> Stability:
        """The grid of short runs, for callers that run one of them."""
        if self.stability is None:
            raise ValueError("this comparison has no short runs")
        return self.stability

    def method(self, name: str) -> Method:
        """Return the method of that name."""
        return next(method for method in self.methods if method.name == name)

    def run_folder(self, method: str, run: str) -> Path:
        """Return the folder of a run's weights; `run` is "seed-S" or the name of a short run."""
        weights = self.method(method).weights
        if weights is not None:
            return given_folder(weights, int(run.removeprefix("seed-")))
        return self.folder / "runs" / method / run

    def recipe(self, method: Method, seed: int, run: str | None = None, **changes: Any) -> ResolvedRecipe:
        """Return the recipe of one run. It is the same for all methods except for what the method changes.

        Args:
            method: One of `methods`.
            seed: Seed of the weights, the views and the order of the images.
            run: Name of the run's folder; default: "seed-S".
            **changes: Further fields that a short run changes.
        """
        values = {**self.base.values, **method.changes, **changes, "seed": seed, "disable_tqdm": True}
        values["output"] = str(self.run_folder(method.name, run or f"seed-{seed}"))
        where = f"method {method.name}"
        return resolve(Recipe(self.base.name, self.base.text, values, where))

    def fingerprint(self, method: Method, seed: int) -> dict[str, Any]:
        """Return everything that decides the weights of a run."""
        if (method.name, seed) not in self.fingerprints:
            if method.weights is None:
                found = run_fingerprint(self.recipe(method, seed), self.contents, method.trained)
            else:
                cell = Cells(self.folder).path(method.name, seed, PRETRAIN)
                found = given_fingerprint(given_folder(method.weights, seed), cell, seed)
            self.fingerprints[method.name, seed] = found
        return self.fingerprints[method.name, seed]


def make_plan(options: CompareOptions) -> Plan:
    """Plan what the user asked for, and check every name and value of it before anything runs.

    Raises:
        UserError: a file, method, field, data set or number cannot be used.
    """
    base = _base_recipe(options)
    output = base.values.pop("output", None)
    folder = Path(output or f"runs/compare-{base.name}").expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output {folder} is a file; choose a folder with --output")
    variants = read_variants(options.variants) if options.variants else {}
    methods = [find_method(name, variants) for name in _unique(options.methods or ["byol", "ladder"], "method")]
    plan = Plan(
        name=base.name,
        base=base,
        folder=folder,
        methods=_baseline_first(methods, options.baseline),
        seeds=_unique([0, 1, 2] if options.seeds is None else options.seeds, "seed"),
        evaluations=[],
        gradients=options.gradients,
        keep_weights=options.keep_weights,
        redo=options.redo,
    )
    if not plan.seeds:
        raise UserError("seeds: give at least one")
    from ..pretraining.build import build_views, network_config, training_arguments

    for method in plan.methods:
        recipe = plan.recipe(method, plan.seeds[0])
        network_config(recipe)
        build_views(recipe)
        training_arguments(recipe, Path(str(recipe.run.output)))
    plan.evaluations = planned_evaluations(options, plan.recipe(plan.baseline, plan.seeds[0]))
    if options.stability:
        plan.stability = planned_stability(options, plan.recipe(plan.baseline, plan.seeds[0]))
    return plan


def find_method(name: str, variants: Mapping[str, dict[str, Any]]) -> Method:
    """Return the method that a name after --methods stands for.

    Args:
        name: byol, ladder, simsiam, random, STAGE.KIND, or the name of a variant.
        variants: Variant -> the fields that it changes.

    Raises:
        UserError: there is no such method; the nearest name is suggested.
    """
    if name in variants and WEIGHTS in variants[name]:
        return Method(name, {"method": "byol"}, weights=variants[name][WEIGHTS])
    if name in variants:
        return Method(name, variants[name])
    if name in METHODS:
        return Method(name, {"method": name})
    if name == RANDOM:
        return Method(name, {"method": "byol"}, trained=False)
    level = _LEVEL.match(name)
    if level:
        stage, kind = level.groups()
        return Method(
            name, {"method": "ladder", "level_names": [stage], "level_losses": [kind], "level_weights": [1.0]}
        )
    known = [*METHODS, RANDOM, *variants]
    raise unknown_name(
        name, known, f"there is no method {name!r}: one of {', '.join(known)}, or STAGE.KIND such as stage4.global"
    )


def read_variants(path: str) -> dict[str, dict[str, Any]]:
    """Read the methods of a YAML file.

    Returns:
        Name -> the fields of the recipe that the method changes, with their declared types; or {"weights": folder}.

    Raises:
        UserError: the file holds no such mapping, a field does not exist, or a name is taken or cannot be a folder's.
    """
    listed, _ = read_mapping(path, "variants")
    if not listed:
        raise UserError(f"variants {path} is empty: it must hold `name: {{field: value}}` lines")
    known = {name: declared for name, declared in all_fields().items() if name not in _NOT_IN_VARIANTS}
    variants: dict[str, dict[str, Any]] = {}
    for name, changes in listed.items():
        where = f"variants {path}: {name}"
        if not _NAME.match(name) or name == RANDOM or name in METHODS:
            raise UserError(f"{where}: a variant needs a name of its own, of letters, digits, _ . + -")
        if not isinstance(changes, dict):
            raise UserError(f"{where} must be a mapping of recipe fields")
        if WEIGHTS in changes:
            variants[name] = {WEIGHTS: _given(changes, where)}
            continue
        variants[name] = check_values(changes, known, f"{where}: ", aliases=ALIASES)
    return variants


def _given(changes: dict[Any, Any], where: str) -> str:
    """Return the folder of weights that are given."""
    folder = changes[WEIGHTS]
    if len(changes) > 1:
        raise UserError(f"{where}: {WEIGHTS} are scored as they are, so no other field can stand beside it")
    if not isinstance(folder, str) or SEED not in folder:
        raise UserError(
            f"{where}: {WEIGHTS} must be a folder's name with {SEED} in it, such as runs/simclr/seed-{SEED}"
        )
    return folder


def _base_recipe(options: CompareOptions) -> Recipe:
    """Return the recipe with the changes of the command line, to which each method adds its own."""
    recipe = read_recipe(options.recipe)
    for name in ("seed", "method"):
        if name in options.fields:
            raise UserError(f"--{name} has no meaning here: use --{name}s")
    # Without a method it is resolved as a Ladder; the baselines would drop the recipe's levels.
    values = {name: value for name, value in recipe.values.items() if name not in ("method", "seed")}
    resolved = resolve(Recipe(recipe.name, recipe.text, values, recipe.where), options.fields)
    return Recipe(recipe.name, recipe.text, dict(resolved.values), recipe.where)


def _baseline_first(methods: list[Method], asked: str | None) -> list[Method]:
    """Move the baseline to the front: the method that was asked for, or byol, or the first one."""
    names = [method.name for method in methods]
    baseline = asked or ("byol" if "byol" in names else names[0])
    if baseline not in names:
        raise unknown_name(baseline, names, f"baseline {baseline!r} is not among the methods {', '.join(names)}")
    return sorted(methods, key=lambda method: method.name != baseline)


def _unique(values: list[Any], what: str) -> list[Any]:
    """Return the values if none is given twice."""
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise UserError(f"{what} {twice[0]} is given twice")
    return list(values)
