"""`ladder card`, `ladder report` and `ladder push`: thin calls of ladder_model_cards, which reads the run's files."""

from pathlib import Path

from ..config.shell import ladder_command
from ..errors import UserError
from ..loading.progress import say
from .options import CardOptions, PushOptions, ReportOptions


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
    dry = ladder_command("push", options.directory, "USER/NAME", dry_run=True)
    print(f"next: {dry}  (shows what would be published)")
    return 0


def report_command(options: ReportOptions) -> int:
    """Write a run or a comparison as one HTML page.

    Args:
        options: From the command line.

    Returns:
        The exit code 0.

    Raises:
        UserError: the folder holds neither, or a file of it cannot be read.
    """
    from ladder_model_cards import CardError, write_report

    say(f"reading {options.directory} and drawing its report ...")
    try:
        path = write_report(options.directory, options.output)
    except CardError as error:
        raise UserError(str(error)) from error
    print(f"report written to {path}; open it in a browser")
    print(f"next: {_after_report(Path(options.directory))}")
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
        model = options.repo if options.revision is None else f"{options.repo}@{options.revision}"
        print(f"next: {ladder_command('evaluate knn', model=model, dataset='DATASET')}  (what others get)")
    elif options.dry_run:
        # The same settings: a repository that was to be private must not become public.
        same = {name: getattr(options, name) for name in ("private", "pretraining", "revision", "tag", "message")}
        print(f"next: {ladder_command('push', options.directory, options.repo, **same)}  (publishes these files)")
    return 0


def _after_report(folder: Path) -> str:
    """The command after a report: publishing the run, or one of a comparison's; of a run that goes on, its report."""
    runs = [folder, *sorted(folder.glob("runs/*/seed-*"))]
    whole = next((run for run in runs if (run / "config.json").is_file()), None)
    if whole is None:
        return f"{ladder_command('report', str(folder))}  (again, with what has come by then)"
    return f"{ladder_command('push', str(whole), 'USER/NAME', dry_run=True)}  (shows what would be published)"
