"""Scripts of the project as modules."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from helpers.paths import ROOT


@contextmanager
def loaded_script(path: str) -> Iterator[ModuleType]:
    """Import a script, which finds its neighbours as it does when it is run; afterwards all of them are forgotten.

    Args:
        path: Below the project's root.
    """
    file, before = ROOT / path, set(sys.modules)
    sys.path.insert(0, str(file.parent))
    try:
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[file.stem] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(file.parent))
        for name in {neighbour.stem for neighbour in file.parent.glob("*.py")} - before:
            sys.modules.pop(name, None)
