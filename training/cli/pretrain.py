"""`ladder pretrain`: resolves the recipe with what was typed, and pretrains."""

from ..config.recipe import read_recipe, resolve
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
    recipe = resolve(read_recipe(options.recipe), options.fields)

    # torch is imported only once the recipe is known to be right.
    from ..pretraining.run import pretrain

    return pretrain(recipe)
