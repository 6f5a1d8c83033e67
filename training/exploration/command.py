"""`ladder explore`: opens the page, or writes it as a Hugging Face Space."""

import shlex
import socket
from pathlib import Path

from ..errors import UserError
from ..evaluation.report import file_name
from .options import ExploreOptions


def explore_command(options: ExploreOptions) -> int:
    """Show a set of images through a backbone, until the user stops it.

    Args:
        options: From the command line.

    Returns:
        The exit code 0.

    Raises:
        UserError: there is no such model or data set, a package is missing, or the port is taken.
    """
    if options.space is not None:
        from .space import write_space

        folder = write_space(options)
        upload = shlex.join(["hf", "upload", "--repo-type", "space", "USER/NAME", str(folder)])
        print(f"Space written to {folder}; push it with `{upload}`")
        return 0
    try:
        import uvicorn
    except ImportError as error:
        raise UserError("ladder explore needs more packages: pip install 'ladder-siamese[explore]'") from error
    from .page import Page, make_app
    from .viewer import open_viewers

    listening = _listen(options.host, options.port)
    kept = Path(options.output or f"runs/explore-{file_name(Path(options.dataset).name)}")
    app = make_app(Page(open_viewers(options, kept)))
    # From here on a browser that comes early waits instead of being refused.
    listening.listen()
    host, port = listening.getsockname()[:2]
    print(f"open http://{host}:{port} in a browser; Ctrl-C ends it", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before the images are embedded.

    Raises:
        UserError: another program has it, or there is no such address.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise UserError(f"cannot listen on {host}, port {port}: {error}; give another --port, or 0 for any") from error
    return listening
