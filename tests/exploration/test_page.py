"""What the page of `ladder explore` shows, asked event by event, and once in a real browser."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from helpers.browser import chromium
from ladder_training.cli.entry import main
from ladder_training.exploration.names import embeddings_file
from ladder_training.exploration.options import ExploreOptions
from ladder_training.exploration.page import Page, make_app, make_blocks
from ladder_training.exploration.points import coloured, similar_places
from ladder_training.exploration.viewer import open_viewers


@pytest.fixture(scope="module")
def page(explored: ExploreOptions) -> Page:
    return Page(open_viewers(explored, Path(explored.output)))


def titles(gallery: list) -> list[str]:
    return [caption for _, caption in gallery]


def test_similar_images_have_the_colour_of_the_query(page: Page) -> None:
    ids = page.first.collection.ids
    row = ids.index("red/00.png")
    found = titles(page.similar(0, row, "stage1"))
    assert len(found) == 12
    assert all("· red ·" in caption for caption in found[:5])
    assert ids[row] not in " ".join(found)


def test_an_image_that_was_dropped_finds_itself(page: Page) -> None:
    collection = page.first.collection
    pixels = cv2.cvtColor(cv2.imread(collection.images.undecoded(5)["path"]), cv2.COLOR_BGR2RGB)
    cosine, title = titles(page.similar(0, pixels, "stage2"))[0].split(" · ", 1)
    assert float(cosine) == pytest.approx(1, abs=0.005)
    assert title == collection.title(5)


def test_the_copied_image_is_the_near_duplicate(page: Page) -> None:
    found = titles(page.duplicates(0, "stage4", 0.99999))
    assert {"grey/23.png", "grey/24.png"} <= {caption.split(" · ")[2] for caption in found[:2]}


def test_outliers_and_both_models(page: Page) -> None:
    assert len(page.outliers(0, "stage4")) == 24
    assert [viewer.name for viewer in page.viewers] == ["model", "untrained"]
    first, second = (titles(page.similar(number, 0, "stage4")) for number in (0, 1))
    assert first != second
    assert page.first.embedding(page.picture(0), "stage4").shape == (20,)


def test_a_point_is_most_similar_to_itself(page: Page) -> None:
    viewer = page.first
    square = viewer.square(page.picture(0))
    maps = similar_places(viewer.backbone, viewer.settings, [square, square[:, ::-1]], 0.3, 0.7)
    same, mirrored = maps["stage1"]
    rows, columns = same.shape
    place = (int(0.7 * rows), int(0.3 * columns))
    assert same[place] == pytest.approx(1, abs=1e-5)
    assert np.unravel_index(same.argmax(), same.shape) == place
    assert mirrored.shape == same.shape
    picture = coloured(square, same, 96)
    assert picture.shape == (96, 96, 3)
    gallery = page.places(0, 0, "stage1", 0.3, 0.7)
    nearest, _ = page.first.like_row(0, "stage1", 1)[0]
    assert titles(gallery)[:2] == ["stage1: the same image", f"stage1: {page.first.collection.title(nearest)}"]
    assert len(gallery) == 4 * 4


def test_addresses_of_the_map_and_the_images(page: Page) -> None:
    from fastapi.testclient import TestClient

    client = TestClient(make_app(page))
    answer = client.get("/look/thumb/3")
    assert cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR).shape[0] == 128
    assert client.get("/look/title/3").text == page.first.collection.title(3)
    assert client.get("/look/thumb/25").status_code == 404
    text = client.get("/look/map/0/stage4/pca/label").text
    data = json.loads(re.search(r"const data = (.*);", text)[1])
    assert data["classes"] == ["blue", "green", "grey", "red"]
    assert data["keys"] == [*(f"c{number}" for number in range(10)), "soft"]
    assert "--c0:" in text and "__STYLE__" not in text
    grouped = json.loads(re.search(r"const data = (.*);", client.get("/look/map/0/stage4/pca/cluster").text)[1])
    assert grouped["classes"] == [f"cluster {number:02d}" for number in range(1, 11)]
    assert grouped["points"] == data["points"] and grouped["kinds"] != data["kinds"]
    assert client.get("/look/map/9/stage4/pca/label").status_code == 404


def test_a_space_carries_what_it_needs(explored: ExploreOptions, tmp_path: Path) -> None:
    words = ["explore", "--model", explored.model, "--dataset", explored.dataset, "--space", str(tmp_path / "space")]
    assert main(words) == 0
    app = (tmp_path / "space" / "app.py").read_text()
    assert "'--model', 'model', '--dataset', 'images'" in app
    assert (tmp_path / "space" / "model" / "model.safetensors").is_file()
    assert len(list((tmp_path / "space" / "images").rglob("*.png"))) == 25
    assert "sdk: gradio" in (tmp_path / "space" / "README.md").read_text()
    needed = (tmp_path / "space" / "requirements.txt").read_text().splitlines()
    assert {"gradio>=6.0.1", "torch>=2.6", "faiss-cpu>=1.9"} <= set(needed) and "pytest" not in needed
    assert (tmp_path / "space" / "ladder_training" / "exploration" / "map.html").is_file()
    assert not list((tmp_path / "space").rglob("__pycache__"))
    assert main(words) == 2


def test_a_space_shows_the_same_images_under_any_name(explored: ExploreOptions, tmp_path: Path, capsys) -> None:
    """Every option that chooses images goes along, a data set in one file is copied, and a name stays text."""
    model = Path(shutil.copytree(explored.model, tmp_path / 'my "net": #2'))
    file, space = tmp_path / "pets.parquet", tmp_path / "the space"
    file.write_bytes(b"rows")
    words = ["explore", "--model", str(model), "--dataset", str(file), "--space", str(space)]
    assert main([*words, "--split", "train", "--split", "test", "--trust_paths"]) == 0
    assert f"USER/NAME '{space}'`" in capsys.readouterr().out
    call = re.search(r"main\(\[\*(\[.*?\])", (space / "app.py").read_text())[1]
    assert ast.literal_eval(call) == [
        *("explore", "--model", "model", "--dataset", "images/pets.parquet", "--split", "train", "--split", "test"),
        *("--trust_paths", "--host", "0.0.0.0", "--output", "embeddings"),
    ]
    assert (space / "images" / "pets.parquet").read_bytes() == b"rows"
    facts = yaml.safe_load((space / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert facts["title"] == 'Explore my "net": #2' and facts["emoji"] == "🪜" and facts["pinned"] is False


def test_a_space_of_a_path_that_is_not_there_is_refused(explored: ExploreOptions, tmp_path: Path, capsys) -> None:
    words = ["explore", "--model", explored.model, "--dataset", "./no/images", "--space", str(tmp_path / "space")]
    assert main(words) == 2
    assert "there is no ./no/images, which the Space would carry" in capsys.readouterr().err
    assert not (tmp_path / "space").exists()


def test_names_are_text_on_the_page(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page.first, "name", "a*b_c_<i>")
    shown = [part["props"].get("value") or "" for part in make_blocks(page).get_config_file()["components"]]
    assert "a&#42;b_c&#95;&#60;i&#62;" in shown
    assert sum("**a&#42;b_c&#95;&#60;i&#62;** beside **untrained**" in str(value) for value in shown) == 1


def test_a_model_with_a_long_path_has_a_file_of_embeddings() -> None:
    paths = ["/folder" * 60 + end for end in ("/a", "/b")]
    files = [embeddings_file(path) for path in paths]
    assert len({*files}) == 2 and all(len(file) == 150 + len(".parquet") for file in files)
    assert embeddings_file("runs/mine") == "runs-mine.parquet"


def test_a_port_that_is_taken_is_said_in_one_line(explored: ExploreOptions, capsys: pytest.CaptureFixture) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = [
            "explore",
            "--model",
            explored.model,
            "--dataset",
            explored.dataset,
            "--port",
            str(taken.getsockname()[1]),
        ]
        assert main(words) == 2
    assert "give another --port" in capsys.readouterr().err


@pytest.fixture
def served(explored: ExploreOptions) -> Iterator[str]:
    """The address of the page in a process of its own."""
    words = [
        sys.executable,
        "-m",
        "ladder_training",
        "explore",
        "--model",
        explored.model,
        "--dataset",
        explored.dataset,
    ]
    words += ["--beside", "untrained", "--output", explored.output, "--port", "0"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "0"}
    )
    try:
        yield next(line.split()[1] for line in process.stdout if line.startswith("open "))
    finally:
        process.terminate()
        process.wait(30)


DROP = """([element, bytes]) => {
  const files = new DataTransfer();
  files.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
  for (const kind of ["dragenter", "dragover", "drop"])
    element.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: files }));
}"""


@pytest.mark.slow  # half a minute each: the page is started and used in a real browser
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(served: str, width: int) -> None:
    """Look, click a point, drop an image, hover the map, switch backbones, on a screen and on a phone."""
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": width, "height": 900})
        errors: list[str] = []
        tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(served, wait_until="domcontentloaded")
        tab.wait_for_selector("#similar-0 img", timeout=120_000)
        tab.wait_for_selector("#similar-1 img", timeout=120_000)
        box = tab.locator("#seen img").first.bounding_box()
        tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.wait_for_selector("#places-0 img", timeout=120_000)
        picture = cv2.imencode(".png", np.full((40, 40, 3), 200, np.uint8))[1].tobytes()
        before = tab.locator("#similar-0").inner_text()
        tab.evaluate(DROP, [tab.locator("#dropped button").first.element_handle(), list(picture)])
        changed = "text => document.querySelector('#similar-0').innerText !== text"
        tab.wait_for_function(changed, arg=before, timeout=120_000)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width + 1

        tab.locator("#which").get_by_text("untrained", exact=True).click()
        tab.wait_for_selector("#similar-0", state="hidden", timeout=60_000)
        assert tab.locator("#similar-1").is_visible()
        tab.locator("#which").get_by_text("side by side").click()
        tab.wait_for_selector("#similar-0", state="visible", timeout=60_000)

        tab.get_by_role("tab", name="Map").click()
        frame = tab.frame_locator("iframe").first
        frame.locator("body[data-ready='25']").wait_for(timeout=60_000)
        assert "red" in frame.locator("#key").inner_text()
        canvas = frame.locator("canvas").bounding_box()
        for step in range(400):
            across, down = (
                canvas["x"] + canvas["width"] * (step % 20 + 0.5) / 20,
                canvas["y"] + canvas["height"] * (step // 20 + 0.5) / 20,
            )
            tab.mouse.move(across, down)
            if frame.locator("#shown").is_visible():
                break
        assert "." in frame.locator("#shown span").inner_text(timeout=10_000)
        tab.locator("#colour").get_by_text("cluster").click()
        frame.locator("#key", has_text="cluster 01").wait_for(timeout=60_000)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width + 1
        assert errors == []


@pytest.mark.slow  # it embeds the images in a process of its own
def test_a_space_starts_from_a_clone(explored: ExploreOptions, tmp_path: Path) -> None:
    """The written folder, cloned by git, shows the page and answers a query, with the code that it carries."""
    from urllib.request import urlopen

    from gradio_client import Client

    words = ["explore", "--model", explored.model, "--dataset", explored.dataset, "--space", str(tmp_path / "space")]
    assert main(words) == 0
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "The page"]):
        subprocess.run(["git", "-C", str(tmp_path / "space"), *command], check=True)
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(tmp_path / "space"), str(clone)], check=True)
    where = [sys.executable, "-c", "import ladder_training; print(ladder_training.__file__)"]
    found = subprocess.run(where, cwd=clone, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == clone / "ladder_training" / "__init__.py"
    environment = {**os.environ, "GRADIO_SERVER_PORT": "0", "GRADIO_ANALYTICS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=clone, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        address = next(line.split()[1] for line in process.stdout if line.startswith("open "))
        address = address.replace("0.0.0.0", "127.0.0.1")
        with urlopen(address) as answer:
            assert answer.status == 200 and "ladder explore" in answer.read().decode()
        gallery = Client(address, verbose=False).predict("stage1", api_name="/similar")
        assert len(gallery) == 12, "images like the first one, which is blue"
        assert {entry["caption"].split(" · ")[1] for entry in gallery[:3]} == {"blue"}
    finally:
        process.terminate()
        process.wait(30)
