"""One style for every figure and page: colours that stay apart, texts that do not overlap, and no second palette."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.hub_server.runs import log_history
from helpers.paths import ROOT
from ladder_model_cards.figures import style, training_figures
from ladder_model_cards.figures.style import DARK, LIGHT, Look, Scheme, canvas, css, line_looks, method_looks
from ladder_training.compare.figures import comparison_figures

# Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB.
SIGHT = {
    "full": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
OWN = ROOT / "model_cards" / "figures" / "style.py"
COLOUR_OR_FONT = re.compile(
    "|".join(
        (
            r"#[0-9a-fA-F]{6}\b",
            r"#[0-9a-fA-F]{3,4}(?=[;\"' )])",
            r"font-family\s*[:=]\s*(?!var)",
            r"[\"']font\.family",
            r"\bfont:(?![^;]*var\(--font\))",
            r"color_sequences|\bcolormaps\b|COLORMAP_[A-Z]|cmap=[\"']",
            r"\bcolou?r=[\"'](?!c\d)",
            r"\b(?:fc|ec|fill|stroke)=[\"'](?!none|\{)",
        )
    )
)


def linear(colour: str) -> np.ndarray:
    """Linear red, green and blue of "#rrggbb"."""
    values = np.array(style.rgb(colour)) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    """CIELAB of linear red, green and blue under D65."""
    x = TO_XYZ @ np.clip(light, 0, 1) / np.array([0.95047, 1.0, 1.08883])
    f = np.where(x > 216 / 24389, np.cbrt(x), (24389 / 27 * x + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    """Contrast of WCAG 2."""
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("sight", SIGHT)
def test_colours_stay_apart_for_every_eye(scheme: Scheme, sight: str) -> None:
    """A CIELAB distance of 20 is a clear difference; the first five, which most figures need, are wider apart."""
    seen = [lab(SIGHT[sight] @ linear(colour)) for colour in scheme.series]
    assert len(seen) == 10
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 20
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen[:5], 2)) > 28


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_are_seen_on_their_paper(scheme: Scheme) -> None:
    assert min(contrast(colour, scheme.paper) for colour in scheme.series) >= 2.95
    for paper in (scheme.paper, scheme.mark):
        assert contrast(scheme.ink, paper) >= 7
        assert contrast(scheme.soft, paper) >= 4.5


def test_a_stage_has_one_colour_in_every_figure() -> None:
    assert line_looks(["stage4.global"])["stage4.global"] == Look("c3")
    ladder = line_looks(["stage1.local", "stage1.global", "stage4.local", "stage4.global", "total"])
    assert ladder["stage4.local"] == Look("c3") and ladder["stage4.global"] == Look("c3", True)
    assert ladder["total"] == Look("ink", True)
    assert line_looks(["stage12"])["stage12"] == Look("c1", True)
    assert line_looks(["early", "late"]) == {"early": Look("c0"), "late": Look("c1")}
    assert method_looks(["byol", "ladder", "simsiam"], "byol") == {
        "byol": Look("soft"),
        "ladder": Look("c0"),
        "simsiam": Look("c1"),
    }


def test_pages_follow_the_scheme_of_the_reader() -> None:
    text = css()
    light, dark = text.split("prefers-color-scheme:dark")
    assert f"--ink:{LIGHT.ink}" in light and f"--c9:{LIGHT.series[9]}" in light
    assert f"--ink:{DARK.ink}" in dark and f"--c9:{DARK.series[9]}" in dark
    assert ".line.c3{stroke:var(--c3)}" in text


def sources() -> list[Path]:
    """Every file that could set a colour or a font."""
    folders = ("model_cards", "modeling_ladder", "training", "docs", "benchmarks", "examples")
    found = [
        path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".css", ".html")
    ]
    return [path for path in found if path != OWN]


def set_by_hand(text: str) -> list[str]:
    """Colours and fonts that a text sets itself."""
    return [text[max(0, match.start() - 20) : match.end() + 20] for match in COLOUR_OR_FONT.finditer(text)]


def test_no_other_module_sets_a_colour_or_a_font() -> None:
    found = {str(path.relative_to(ROOT)): set_by_hand(path.read_text(encoding="utf-8")) for path in sources()}
    assert {name: places for name, places in found.items() if places} == {}


@pytest.mark.parametrize(
    "text",
    [
        'INK = "#1b1f24"',
        "a { box-shadow: 0 1px 8px #0006; }",
        'axes.plot(x, y, color="black")',
        '{"font.family": "Arial"}',
        "body { font: 14px system-ui; }",
        '<g font-family="Verdana">',
        'axes.imshow(x, cmap="YlGn")',
        "matplotlib.colormaps[name]",
        "cv2.applyColorMap(x, cv2.COLORMAP_JET)",
    ],
)
def test_a_planted_colour_is_found(text: str) -> None:
    assert set_by_hand(text)


@pytest.mark.parametrize("text", ["body { font: 16px/1.5 var(--font); color: var(--ink); }", 'color=colours["ladder"]'])
def test_what_the_style_gives_may_be_used(text: str) -> None:
    assert set_by_hand(text) == []


def overlapping(figure: Any) -> list[tuple[str, str]]:
    """Pairs of texts of a drawn figure that cover each other, and texts that leave the picture."""
    from matplotlib.text import Text

    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    hidden = [label for axes in figure.axes for label in hidden_ticks(axes)]
    boxes = []
    for text in figure.findobj(Text):
        if not text.get_visible() or not text.get_text().strip() or any(text is label for label in hidden):
            continue
        boxes.append((text.get_text(), text.get_window_extent(renderer)))
    wide, high = figure.bbox.width, figure.bbox.height
    found = [
        (name, "the edge")
        for name, box in boxes
        if box.x0 < -1 or box.y0 < -1 or box.x1 > wide + 1 or box.y1 > high + 1
    ]
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        down = min(first.y1, second.y1) - max(first.y0, second.y0)
        if across > 1 and down > 1:
            found.append((one, other))
    return found


def hidden_ticks(axes: Any) -> list[Any]:
    """Labels of ticks that matplotlib keeps but does not draw: outside the axes, or of an axis that is off."""
    labels = []
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        slack = 1e-9 * max(1.0, high - low)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            inside = low - slack <= tick.get_loc() <= high + slack
            for label, drawn in ((tick.label1, tick.label1.get_visible()), (tick.label2, tick.label2.get_visible())):
                if not (inside and drawn and axes.axison and axis.get_visible()):
                    labels.append(label)
    return labels


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn during a test, each checked for texts that overlap before it is saved."""
    figures: list[Any] = []

    def watched(width: float, height: float) -> tuple[Any, Callable[[], bytes], Any]:
        figure, png, context = canvas(width, height)

        def checked() -> bytes:
            figures.append(figure)
            data = png()
            assert overlapping(figure) == []
            return data

        return figure, checked, context

    for module in (style, training_figures):
        monkeypatch.setattr(module, "canvas", watched)
    return figures


@pytest.mark.parametrize("name", ["imagenette96", "imagenette64", "ablation"])
def test_no_text_of_a_comparison_covers_another(name: str, drawn: list[Any]) -> None:
    data = json.loads((ROOT / "docs" / "study" / name / "comparison.json").read_text(encoding="utf-8"))
    assert len(comparison_figures(data)) == len(drawn) >= 5
    assert all(figure.get_figwidth() <= style.WIDTH for figure in drawn)


def test_no_text_of_a_run_covers_another(drawn: list[Any]) -> None:
    both = [
        {"step": 4 * n, **{f"loss/stage{s}.{k}": 2.0 - n / 10 for s in range(1, 5) for k in ("local", "global")}}
        for n in range(9)
    ]
    assert set(training_figures.training_figures([*log_history(40), *both])) == {"loss.png", "knn.png", "collapse.png"}
    assert len(drawn) == 3


def test_overlapping_texts_are_found() -> None:
    figure, png, context = canvas(4, 3)
    with context:
        axes = figure.add_subplot()
        axes.text(0.5, 0.5, "one")
        axes.text(0.51, 0.5, "two")
        png()
    assert overlapping(figure) == [("one", "two")]


def test_the_picture_of_the_method_is_what_its_script_draws() -> None:
    import runpy

    drawn = runpy.run_path(str(ROOT / "docs" / "draw_method.py"))["picture"]()
    assert (ROOT / "docs" / "method.svg").read_text(encoding="utf-8") == drawn, "run python docs/draw_method.py"
    assert f"--ink:{DARK.ink}" in drawn
