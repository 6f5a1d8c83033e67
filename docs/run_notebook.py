"""Run the notebook and write its results into it: `python docs/run_notebook.py [--output FILE]`."""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parent / "tutorials" / "notebook.ipynb"


def run(path: Path, folder: Path, timeout: int = 1800) -> Any:
    """Run every cell of a notebook in a folder.

    Args:
        path: The notebook.
        folder: Where it runs and writes its files.
        timeout: Seconds for one cell.

    Returns:
        The notebook with its results.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    os.environ.setdefault("TQDM_DISABLE", "1")
    client = NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    for cell in notebook.cells:
        # What changes with each run is of no interest to a reader.
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.output_type != "stream" or out.name != "stderr"]
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def main() -> None:
    """Run it and write it."""
    import nbformat

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=NOTEBOOK)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(run(NOTEBOOK, Path(folder)), options.output)


if __name__ == "__main__":
    main()
