"""`ladder card` and `ladder push`: thin calls of ladder_model_cards, which reads the run's files."""

from ..errors import UserError
from .options import CardOptions, PushOptions


def card_command(options: CardOptions) -> int:
    """Write a run's card again.

    Args:
        options: From the command line.

    Returns:
        The exit code 0.

    Raises:
        UserError: the folder holds no finished run.
    """
    from ladder_model_cards import CardError, write_card

    try:
        write_card(options.directory)
    except CardError as error:
        raise UserError(str(error)) from error
    print(f"card written to {options.directory}/README.md")
    return 0


def push_command(options: PushOptions) -> int:
    """Publish a run on the Hub.

    Args:
        options: From the command line.

    Returns:
        The exit code 0.

    Raises:
        UserError: the folder cannot be published, or the Hub refused it. The message says what to do next.
    """
    from ladder_model_cards import CardError, PushError, push

    try:
        result = push(
            options.directory,
            options.repo,
            private=options.private,
            revision=options.revision,
            tag=options.tag,
            include_pretraining=options.pretraining,
            dry_run=options.dry_run,
            message=options.message,
        )
    except (CardError, PushError) as error:
        raise UserError(str(error)) from error
    if result.commit is not None:
        print(f"{'published' if result.changed else 'already up to date'}: {result.url}")
    return 0
