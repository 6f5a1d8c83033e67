"""Loading by name with the real client, in fresh processes: with this package, without it, and offline."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.hub_server import HubServer
from helpers.hub_server.runs import save_backbone
from helpers.hub_server.tokens import WRITE

NAME = "user/digits"

COMMON = """
import hashlib, json, sys
import huggingface_hub.utils._http as client_http

requests = []
count = client_http.hf_request_event_hook
def counting(request):
    answer = count(request)  # raises in offline mode
    requests.append(request.method + " " + request.url.path)
    return answer
client_http.hf_request_event_hook = counting

def digest(model, prefix=""):
    rows = sorted((k, v.detach().contiguous().numpy().tobytes()) for k, v in model.state_dict().items()
                  if k.startswith(prefix))
    return hashlib.sha256(b"".join(k.removeprefix(prefix).encode() + v for k, v in rows)).hexdigest()

first, second, found = sys.argv[1], sys.argv[2], {}
"""

WITH_PACKAGE = (
    COMMON
    + """
import torch
from transformers import AutoBackbone, AutoModel, ResNetBackbone, ResNetForImageClassification
from modeling_ladder import LadderSiameseForPreTraining, LadderSiameseModel

found["backbone"] = {rev: digest(ResNetBackbone.from_pretrained("user/digits", revision=rev))
                     for rev in (first, second)}
found["ladder"] = {rev: digest(LadderSiameseModel.from_pretrained("user/digits", revision=rev), "backbone.")
                   for rev in (first, second)}
found["main"] = digest(LadderSiameseModel.from_pretrained("user/digits"), "backbone.")
found["auto"] = digest(AutoModel.from_pretrained("user/digits", revision=second))
found["auto_backbone"] = digest(AutoBackbone.from_pretrained("user/digits", revision=second))
model, info = ResNetForImageClassification.from_pretrained(
    "user/digits", revision=second, num_labels=3, output_loading_info=True)
found["classifier_missing"] = sorted(info["missing_keys"])
full = LadderSiameseForPreTraining.from_pretrained("user/digits", subfolder="pretraining")
found["online"], found["target"] = digest(full, "backbone."), digest(full, "target.backbone.")
found["frozen"] = not any(p.requires_grad for p in full.target.parameters())
# Going on: the loss flows into the online network only, the target moves by update_target only.
full.train()
boxes = torch.tensor([[[0, 0, 1, 1.0], [0.1, 0.1, 0.9, 0.9]]]).repeat(4, 1, 1)
before = {k: v.clone() for k, v in full.target.named_parameters()}
out = full(torch.randn(4, 2, 3, 64, 64), view_boxes=boxes, view_flips=torch.zeros(4, 2, dtype=torch.bool))
out.loss.backward()
found["online_grad"] = sum(float(p.grad.abs().sum()) for p in full.backbone.parameters() if p.grad is not None)
found["target_grad"] = any(p.grad is not None for p in full.target.parameters())
torch.optim.SGD([p for p in full.parameters() if p.requires_grad], lr=0.1).step()
found["target_still"] = all(torch.equal(v, before[k]) for k, v in full.target.named_parameters())
full.update_target(0.9)
found["target_moved"] = any(not torch.equal(v, before[k]) for k, v in full.target.named_parameters())
# Warm cache and a full commit id: not one request.
requests.clear()
ResNetBackbone.from_pretrained("user/digits", revision=second)
LadderSiameseModel.from_pretrained("user/digits", revision=second)
found["requests_when_pinned"] = list(requests)
print(json.dumps(found))
"""
)

WITHOUT_PACKAGE = (
    """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modeling_ladder", "ladder_training", "ladder_model_cards"):
            raise ModuleNotFoundError(name + " is not installed here", name=name)
sys.meta_path.insert(0, Block())
"""
    + COMMON
    + """
import torch
from PIL import Image
from transformers import AutoBackbone, AutoImageProcessor, AutoModel, AutoModelForPreTraining, ResNetBackbone
from transformers import ResNetForImageClassification, pipeline

found["backbone"] = digest(ResNetBackbone.from_pretrained("user/digits", revision=second))
found["auto"] = digest(AutoModel.from_pretrained("user/digits", trust_remote_code=False))
found["auto_backbone"] = digest(AutoBackbone.from_pretrained("user/digits"))
processor = AutoImageProcessor.from_pretrained("user/digits")
found["processor"] = type(processor).__name__
classifier = ResNetForImageClassification.from_pretrained("user/digits", num_labels=3)
found["classifier"] = digest(classifier.resnet)
image = Image.linear_gradient("L").convert("RGB")
piped = pipeline("image-feature-extraction", model="user/digits", device="cpu", pool=True)(image)
with torch.no_grad():
    direct = AutoModel.from_pretrained("user/digits").eval()(**processor(image, return_tensors="pt")).pooler_output
found["pipeline"] = torch.equal(torch.tensor(piped).flatten(), direct.flatten()) and direct.numel() == 32
try:
    AutoModelForPreTraining.from_pretrained("user/digits", subfolder="pretraining", trust_remote_code=False)
except ValueError as error:
    found["untrusted"] = str(error)
full = AutoModelForPreTraining.from_pretrained("user/digits", subfolder="pretraining", trust_remote_code=True)
found["class"] = type(full).__name__
found["module"] = type(full).__module__.split(".")[0]
found["online"], found["target"] = digest(full, "backbone."), digest(full, "target.backbone.")
plain = AutoModel.from_pretrained("user/digits", subfolder="pretraining", trust_remote_code=True)
found["plain"] = [type(plain).__name__, digest(plain, "backbone.")]
maps = AutoBackbone.from_pretrained("user/digits", subfolder="pretraining", trust_remote_code=True)
found["maps"] = [type(maps).__name__, digest(maps, "backbone.")]
try:
    import modeling_ladder
except ModuleNotFoundError:
    found["blocked"] = True
print(json.dumps(found))
"""
)

SNIPPETS = (
    WITHOUT_PACKAGE.split("found[", 1)[0]
    + """
done = []
for code in json.load(sys.stdin):
    exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})
    done.append(code.count("from_pretrained"))
print(json.dumps({"done": done}))
"""
)

OFFLINE = (
    COMMON
    + """
from transformers import AutoModel, ResNetBackbone
from modeling_ladder import LadderSiameseForPreTraining, LadderSiameseModel

found["main"] = digest(ResNetBackbone.from_pretrained("user/digits"))
found["auto"] = digest(AutoModel.from_pretrained("user/digits"))
found["first"] = digest(LadderSiameseModel.from_pretrained("user/digits", revision=first), "backbone.")
full = LadderSiameseForPreTraining.from_pretrained("user/digits", subfolder="pretraining")
found["target"] = digest(full, "target.backbone.")
from ladder_model_cards import PushError, push
try:
    push(sys.argv[3], "user/digits", report=lambda line: None)
except PushError as error:
    found["push"] = str(error)
try:
    LadderSiameseModel.from_pretrained("user/never-loaded")
except OSError as error:
    found["unknown"] = str(error)[:200]
found["requests"] = requests
print(json.dumps(found))
"""
)


def fresh_process(
    script: str, *arguments: str, hub: HubServer, home: Path, given: str = "", **extra: str
) -> dict[str, Any]:
    """Run a script in a process of its own and read the JSON it prints last."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    environment = keep | hub.environment(str(home)) | {"OMP_NUM_THREADS": "1", "TMPDIR": str(home)} | extra
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        cwd=home,
        input=given,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def digest_of(file: bytes, prefix: str = "") -> str:
    """The same digest as the scripts', from the safetensors file itself."""
    import hashlib

    from safetensors.torch import load

    rows = sorted((k, v.contiguous().numpy().tobytes()) for k, v in load(file).items() if k.startswith(prefix))
    return hashlib.sha256(b"".join(k.removeprefix(prefix).encode() + v for k, v in rows)).hexdigest()


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
def test_load_by_name(client: HubServer, finished_run: Path, tmp_path: Path) -> None:
    from ladder_model_cards import push

    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (folder / "trainer_state.json").unlink()
    commits = []
    for seed in (1, 0):
        save_backbone(folder, seed=seed)
        pushed = push(folder, NAME, token=WRITE, include_pretraining=True, report=lambda line: None)
        commits.append(pushed.commit)
    repo = client.store.repos[NAME]
    weights = {commit: digest_of(repo.resolve(commit).files["model.safetensors"]) for commit in commits}
    full = repo.resolve("main").files["pretraining/model.safetensors"]
    online, target = digest_of(full, "backbone."), digest_of(full, "target.backbone.")
    assert len({*weights.values(), target}) == 3
    home = tmp_path / "home"
    home.mkdir()

    found = fresh_process(WITH_PACKAGE, *commits, hub=client, home=home)
    assert found["backbone"] == weights and found["ladder"] == weights
    assert found["main"] == found["auto"] == found["auto_backbone"] == weights[commits[1]]
    assert found["classifier_missing"] == ["classifier.1.bias", "classifier.1.weight"]
    assert (found["online"], found["target"]) == (online, target)
    assert found["frozen"] and found["target_still"] and found["target_moved"] and not found["target_grad"]
    assert found["online_grad"] > 0
    assert found["requests_when_pinned"] == []

    client.clear()
    found = fresh_process(OFFLINE, *commits, str(folder), hub=client, home=home, HF_HUB_OFFLINE="1", HF_TOKEN=WRITE)
    assert client.log == [] and found["requests"] == []
    assert found["main"] == found["auto"] == weights[commits[1]] and found["first"] == weights[commits[0]]
    assert found["target"] == target
    assert "offline mode is on (HF_HUB_OFFLINE)" in found["push"] and WRITE not in found["push"]
    assert "find them in the cached files" in found["unknown"]

    bare = tmp_path / "bare"
    bare.mkdir()
    found = fresh_process(WITHOUT_PACKAGE, *commits, hub=client, home=bare)
    assert found["blocked"]
    assert found["backbone"] == found["auto"] == found["auto_backbone"] == found["classifier"] == weights[commits[1]]
    assert found["pipeline"]
    assert found["processor"].startswith("ConvNextImageProcessor")
    assert "trust_remote_code" in found["untrusted"]
    assert (found["class"], found["module"]) == ("LadderSiameseForPreTraining", "transformers_modules")
    assert (found["online"], found["target"]) == (online, target)
    assert found["plain"] == ["LadderSiameseModel", online]
    assert found["maps"] == ["LadderSiameseBackbone", online]


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
def test_snippets_of_a_published_card_run_by_name(client: HubServer, finished_run: Path, tmp_path: Path) -> None:
    """Those that need no package of ours, where there is none, each as it stands on the Hub."""
    from ladder_model_cards import push

    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (folder / "trainer_state.json").unlink()
    push(folder, NAME, token=WRITE, include_pretraining=True, report=lambda line: None)
    card = client.store.repos[NAME].resolve("main").files["README.md"].decode()
    snippets = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(snippets) == 7 and all(NAME in code for code in snippets)
    own = [code for code in snippets if "modeling_ladder" in code]
    alone = [code for code in snippets if code not in own]
    assert len(own) == 3 and "trust_remote_code=True" in alone[-1]
    assert not any("trust_remote_code" in code for code in snippets if code != alone[-1])
    found = fresh_process(SNIPPETS, "", "", hub=client, home=tmp_path, given=json.dumps(alone))
    assert found["done"] == [2, 1, 1, 1]
