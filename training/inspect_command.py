"""`ladder inspect`: prints what is in the data, and writes the report and the contact sheet where --output says."""

from .build import build_model, build_views
from .command_options import InspectOptions
from .errors import UserError
from .recipe import read_recipe, resolve


def inspect_command(options: InspectOptions) -> int:
    """Look at the data sets of the command line, or of a recipe.

    With a recipe its views are shown, and the input is compared with what its model's step takes on this machine.

    Args:
        options: From the command line.

    Raises:
        UserError: neither a data set nor a recipe is given, or the data cannot be used.
    """
    from .inspect_data import inspect_data, print_report

    names, transform, model = options.dataset, None, None
    settings = {"split": options.split, "streaming": options.streaming, "revision": options.revision}
    settings |= {"image_column": options.image_column}
    batch_size = options.batch_size
    if options.recipe is not None:
        recipe = resolve(read_recipe(options.recipe), {"image_size": options.image_size} if options.image_size else {})
        transform, model = build_views(recipe), build_model(recipe)
        named = recipe.data.dataset
        names = names or ([named] if isinstance(named, str) else named)
    elif options.image_size is not None:
        from .views import TwoViewTransform

        transform = TwoViewTransform(size=options.image_size)
    if not names:
        raise UserError("no data set: give --dataset, or --recipe with one")
    result = inspect_data(
        names,
        output=options.output,
        transform=transform,
        limit=options.limit,
        batch_size=batch_size,
        num_workers=options.num_workers,
        model=model,
        **settings,
    )
    print_report(result)
    return 0
