"""`ladder pretrain`: resolves the recipe with what was typed, or plans a run without one, and pretrains."""

from ..config.recipe import read_recipe, resolve
from ..data.left_out import is_first_process
from ..errors import said_once_per_machine
from .options import PretrainOptions


def pretrain_command(options: PretrainOptions) -> int:
    """Pretrain as the command line asks.

    Args:
        options: From the command line.

    Returns:
        The exit code.

    Raises:
        UserError: the recipe, a value, the data or the output folder cannot be used.
        TrainingStopped: the run must not go on.
    """
    if options.recipe is None:
        from ..pretraining.planned import planned_run

        planned = planned_run(options.fields)
        if is_first_process():
            print(planned.text, flush=True)
        recipe = planned.recipe
    else:
        with said_once_per_machine():
            recipe = resolve(read_recipe(options.recipe), options.fields)
    if options.dry_run:
        if is_first_process():
            print(f"\n{recipe.text}", end="")
        return 0

    # torch is imported only once the recipe is known to be right.
    from ..pretraining.run import pretrain

    return pretrain(recipe)
