"""The page of `ladder explore`: Gradio, with the map and the images served beside it."""

import html
import random
from collections.abc import Callable, Sequence
from typing import Any

from ladder_model_cards.figures.style import FONT
from ladder_model_cards.text import plain

from ..errors import UserError
from .collection import Pixels, dropped_image
from .map_page import map_page
from .neighbours import Vectors, curved_map, flat_map
from .viewer import Viewer

SIDE = 160
"""Shorter side of the images in galleries, in pixels."""
SHOWN = 12
OTHERS = 3
"""Images beside the pointed one in which similar places are shown."""
MOST_PAIRS, MOST_OUTLIERS = 24, 24
BOTH = -1
"""Choice of the backbones' switch that shows all of them."""
PAGE_CSS = (
    "iframe.map{width:100%;height:58vh;border:1px solid var(--border-color-primary)}"
    # A row of places is a stage, on a phone too.
    f"[id^=places-] .grid-container{{grid-template-columns:repeat({1 + OTHERS},minmax(0,1fr))!important}}"
)
Gallery = list[tuple[Pixels, str]]


class Page:
    """What the parts of the page show. Each method is one event of it.

    Args:
        viewers: One model, or two to compare. All of them hold the same images.
    """

    def __init__(self, viewers: Sequence[Viewer]) -> None:
        self.viewers = list(viewers)
        self._planes: dict[tuple[int, str, str], Vectors] = {}

    @property
    def first(self) -> Viewer:
        """The viewer whose images the page shows."""
        return self.viewers[0]

    def picture(self, row: int) -> Pixels:
        """An image of the set, as large as the page shows the query."""
        return self.first.collection.image(row, 320)

    def similar(self, number: int, query: int | Pixels, stage: str) -> Gallery:
        """Images like a row of the set, or like one that was dropped, as viewer `number` sees it."""
        viewer = self.viewers[number]
        stage = self.stage_of(viewer, stage)
        if isinstance(query, int):
            found = viewer.like_row(query, stage, SHOWN)
        else:
            found = viewer.like_image(query, stage, SHOWN)
        return [self._entry(viewer, row, cosine) for row, cosine in found]

    def places(self, number: int, query: int | Pixels, stage: str, across: float, down: float) -> Gallery:
        """What each stage finds similar to a point of the query's square, in it and in the images most like it."""
        viewer = self.viewers[number]
        pixels = self.picture(query) if isinstance(query, int) else query
        stage = self.stage_of(viewer, stage)
        near = viewer.like_row(query, stage, OTHERS) if isinstance(query, int) else []
        others = [(viewer.collection.title(row), viewer.collection.image(row, 320)) for row, _ in near]
        return viewer.places_like(viewer.square(pixels), others, across, down)

    def duplicates(self, number: int, stage: str, least: float) -> Gallery:
        """Pairs of images that are nearly the same, side by side in the gallery."""
        viewer = self.viewers[number]
        index = viewer.collection.index(self.stage_of(viewer, stage))
        pairs = index.near_duplicates(least, MOST_PAIRS)
        return [self._entry(viewer, row, cosine) for first, second, cosine in pairs for row in (first, second)]

    def outliers(self, number: int, stage: str) -> Gallery:
        """Images that are like no others, the strangest first."""
        viewer = self.viewers[number]
        found = viewer.collection.index(self.stage_of(viewer, stage)).outliers(MOST_OUTLIERS)
        return [self._entry(viewer, row, cosine) for row, cosine in found]

    def map(self, number: int, stage: str, kind: str, colour: str, prefix: str) -> str:
        """The page of the map; its places are computed once.

        Args:
            number: Of the viewer.
            stage: Whose features.
            kind: "pca" or "umap".
            colour: "label" or "cluster".
            prefix: See `map_page`.
        """
        collection = self.viewers[number].collection
        key = (number, self.stage_of(self.viewers[number], stage), kind)
        if key not in self._planes:
            vectors = collection.embeddings[key[1]]
            self._planes[key] = curved_map(vectors) if kind == "umap" else flat_map(vectors)
        groups = collection.labels if colour == "label" else collection.clusters(key[1])
        return map_page(groups, self._planes[key], prefix)

    @staticmethod
    def stage_of(viewer: Viewer, stage: str) -> str:
        """The stage of that name, or the last one of a model that names its stages differently."""
        return stage if stage in viewer.collection.stages else viewer.collection.stages[-1]

    @staticmethod
    def _entry(viewer: Viewer, row: int, cosine: float) -> tuple[Pixels, str]:
        return viewer.collection.image(row, SIDE), f"{cosine:.2f} · {viewer.collection.title(row)}"


def make_blocks(page: Page) -> Any:
    """Lay the page out.

    Returns:
        A `gradio.Blocks`.

    Raises:
        UserError: gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise UserError("ladder explore needs more packages: pip install 'ladder-siamese[explore]'") from error

    collection = page.first.collection
    stages, count = collection.stages, len(collection)
    numbers = range(len(page.viewers))

    def both(one: Callable[..., Gallery], *inputs: Any) -> Any:
        """The answer of every viewer, as Gradio wants it: one value, or one per output."""
        answers = [one(number, *inputs) for number in numbers]
        return answers[0] if len(answers) == 1 else answers

    def choose(row: float) -> tuple[int, Pixels]:
        chosen = int(min(max(row, 0), count - 1))
        return chosen, page.picture(chosen)

    def drop(image: Any) -> Any:
        return None if image is None else dropped_image(image)

    def point(query: Any, stage: str, event: gr.SelectData) -> Any:
        pixels = page.picture(query) if isinstance(query, int) else query
        height, width = pixels.shape[:2]
        across, down = event.index[0] / width, event.index[1] / height
        square = min(height, width)
        across = min(max((across * width - (width - square) / 2) / square, 0), 0.999)
        down = min(max((down * height - (height - square) / 2) / square, 0), 0.999)
        return both(page.places, query, stage, across, down)

    with gr.Blocks(title="ladder explore", analytics_enabled=False) as blocks:
        names = " beside ".join(f"**{plain(viewer.name)}**" for viewer in page.viewers)
        gr.Markdown(f"# What a backbone sees\n{names}, {count:,} images")
        query = gr.State(0)
        with gr.Row():
            stage = gr.Radio(stages, value=stages[-1], label="Stage", elem_id="stage")
            choices = [(viewer.name, number) for number, viewer in enumerate(page.viewers)]
            which = gr.Radio(
                [("side by side", BOTH), *choices],
                value=BOTH,
                label="Backbones",
                elem_id="which",
                visible=len(choices) > 1,
            )
        sides: list[list[Any]] = [[] for _ in page.viewers]

        def galleries(label: str) -> list[Any]:
            with gr.Row():
                found = [
                    gr.Gallery(
                        label=f"{label}: {viewer.name}",
                        columns=4,
                        object_fit="contain",
                        height="auto",
                        elem_id=f"{label.split()[0].lower()}-{n}",
                    )
                    for n, viewer in enumerate(page.viewers)
                ]
            for number, gallery in enumerate(found):
                sides[number].append(gallery)
            return found

        with gr.Tab("Similar"):
            with gr.Row():
                row = gr.Number(0, label=f"Image 0 to {count - 1}", precision=0, minimum=0, maximum=count - 1)
                another = gr.Button("Another one", elem_id="another")
            with gr.Row():
                seen = gr.Image(page.picture(0), label="Click into it", interactive=False, elem_id="seen", height=320)
                dropped = gr.Image(label="Or drop an image", sources=["upload"], elem_id="dropped", height=320)
            similar = galleries("Similar")
            places = galleries("Places like the point")
        with gr.Tab("Map"):
            colours = ["label", "cluster"] if collection.has_labels else ["cluster"]
            with gr.Row():
                kind = gr.Radio([("flat (PCA)", "pca"), ("neighbours (UMAP)", "umap")], value="pca", label="Layout")
                colour = gr.Radio(colours, value=colours[0], label="Colour by", elem_id="colour")
            with gr.Row():
                for number, viewer in enumerate(page.viewers):
                    with gr.Column(min_width=320) as column:
                        gr.Markdown(plain(viewer.name))
                        frame = gr.HTML(_frame(number, stages[-1], "pca", colours[0]))
                    sides[number].append(column)
                    for choice in (stage, kind, colour):
                        choice.change(lambda *chosen, n=number: _frame(n, *chosen), [stage, kind, colour], frame)
        with gr.Tab("Pairs"):
            least = gr.Slider(0.8, 1.0, 0.98, step=0.005, label="At least this similar (cosine)")
            find_pairs = gr.Button("Find", elem_id="pairs")
            pairs = galleries("Pairs")
        with gr.Tab("Outliers"):
            find_outliers = gr.Button("Find", elem_id="outliers")
            strange = galleries("Outliers")

        def only(chosen: int) -> list[Any]:
            return [gr.update(visible=chosen in (BOTH, number)) for number, side in enumerate(sides) for _ in side]

        which.change(only, which, [part for side in sides for part in side])
        row.change(choose, row, [query, seen])
        another.click(lambda: random.randrange(count), None, row)
        dropped.upload(drop, dropped, query).then(lambda image: image, dropped, seen)
        for change in (query.change, stage.change):
            change(lambda q, s: both(page.similar, q, s), [query, stage], similar)
        blocks.load(lambda q, s: both(page.similar, q, s), [query, stage], similar, api_name="similar")
        seen.select(point, [query, stage], places)
        find_pairs.click(lambda s, t: both(page.duplicates, s, t), [stage, least], pairs)
        find_outliers.click(lambda s: both(page.outliers, s), stage, strange)
    return blocks


def make_app(page: Page) -> Any:
    """The page, the map and the images as one web application (FastAPI)."""
    import cv2
    import gradio as gr
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import HTMLResponse, PlainTextResponse, Response

    app = FastAPI()
    collection = page.first.collection

    def known(row: int) -> int:
        if not 0 <= row < len(collection):
            raise HTTPException(404)
        return row

    @app.get("/look/thumb/{row}")
    def thumb(row: int) -> Response:
        pixels = cv2.cvtColor(collection.image(known(row), 128), cv2.COLOR_RGB2BGR)
        return Response(cv2.imencode(".jpg", pixels)[1].tobytes(), media_type="image/jpeg")

    @app.get("/look/title/{row}")
    def title(row: int) -> PlainTextResponse:
        return PlainTextResponse(collection.title(known(row)))

    @app.get("/look/map/{number}/{stage}/{kind}/{colour}")
    def one_map(number: int, stage: str, kind: str, colour: str) -> HTMLResponse:
        if number not in range(len(page.viewers)):
            raise HTTPException(404)
        try:
            return HTMLResponse(page.map(number, stage, kind, colour, "/look"))
        except UserError as error:
            return HTMLResponse(f"<p>{html.escape(str(error))}</p>")

    theme = gr.themes.Base(primary_hue="blue", font=[name.strip(' "') for name in FONT.split(",")])
    return gr.mount_gradio_app(app, make_blocks(page), path="/", theme=theme, css=PAGE_CSS)


def _frame(number: int, stage: str, kind: str, colour: str) -> str:
    address = f"/look/map/{number}/{stage}/{kind}/{colour}"
    return f'<iframe class="map" src="{address}" title="map"></iframe>'
