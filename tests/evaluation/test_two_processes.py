"""Two processes evaluate as one does: every image scored once, one file, a global batch of both."""

import json
import os
import subprocess
import sys

import pytest

from helpers.paths import HELPERS

SCRIPT = HELPERS / "two_process_evaluation.py"


@pytest.mark.slow
def test_two_processes_score_each_image_once_and_write_one_file(tmp_path):
    import torch.distributed

    if not torch.distributed.is_gloo_available():
        pytest.skip("this build of torch cannot run two processes on a processor (no gloo)")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(SCRIPT)]
    path = os.pathsep.join([str(HELPERS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    result = subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True, timeout=400, env=environment, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    saved = {path.name.split("-")[0]: json.loads(path.read_text()) for path in (tmp_path / "evaluation").iterdir()}
    assert saved.keys() == {"linear", "semi_supervised_50pct", "detection", "segmentation"}
    for name, entry in saved.items():
        assert entry["count"]["score"] == 31, name
        batch = {"linear": 16, "semi_supervised_50pct": 128}.get(name, 4)
        assert entry["protocol"]["global_batch"] == batch, name
    assert saved["linear"]["protocol"]["processes"] == 2
    assert saved["linear"]["metrics"]["stage1"]["accuracy"] > 0.8
