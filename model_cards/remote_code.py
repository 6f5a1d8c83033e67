"""The code that is published with a pretraining checkpoint, so that it loads without this package."""

import re
from pathlib import Path

CONFIG_CLASS = "configuration_ladder.LadderSiameseConfig"
AUTO_MAP = {
    "AutoConfig": CONFIG_CLASS,
    "AutoBackbone": "modeling_ladder.LadderSiameseBackbone",
    "AutoModel": "modeling_ladder.LadderSiameseModel",
    "AutoModelForPreTraining": "modeling_ladder_pretraining.LadderSiameseForPreTraining",
    "AutoModelForImageClassification": "modeling_ladder.LadderSiameseForImageClassification",
}


def remote_code_files() -> dict[str, bytes]:
    """Collect every module that the classes of `AUTO_MAP` need, by following relative imports.

    transformers' loader of remote code requires that the modules lie in one folder and import each other only as
    `from .name import ...`.

    Returns:
        File name to content, sorted by name.
    """
    import modeling_ladder

    folder = Path(modeling_ladder.__file__).parent
    wanted = [entry.split(".")[0] for entry in AUTO_MAP.values()]
    found: dict[str, bytes] = {}
    while wanted:
        name = wanted.pop()
        if f"{name}.py" in found:
            continue
        content = (folder / f"{name}.py").read_bytes()
        found[f"{name}.py"] = content
        wanted += re.findall(r"(?m)^\s*from \.(\w+) import", content.decode("utf-8"))
    return dict(sorted(found.items()))
