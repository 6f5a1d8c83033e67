"""`import modeling_ladder` costs what the transformers classes that it builds on cost, and nothing else."""

import os
import subprocess
import sys


def modules_after(code: str) -> set[str]:
    code += "\nimport sys; print(' '.join(sys.modules))"
    environment = {**os.environ, "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return set(done.stdout.split())


def test_importing_the_models_loads_nothing_beyond_the_transformers_classes_they_extend() -> None:
    needed = modules_after("from transformers import AutoBackbone, AutoModel, PreTrainedModel")
    loaded = modules_after("import modeling_ladder")
    assert {name.split(".")[0] for name in loaded - needed} == {"modeling_ladder"}
    for heavy in ("datasets", "ladder_training", "cv2", "sklearn", "matplotlib", "evaluate", "transformers.trainer"):
        assert heavy not in loaded
