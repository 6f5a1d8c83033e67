"""Draw the method as one picture: `python docs/draw_method.py` writes docs/method.svg, light and dark in one file."""

from pathlib import Path

from ladder_model_cards.figures.style import css

WIDTH, HEIGHT = 860, 450
ONLINE, TARGET, LOSS, SOFT = "c0", "c2", "c1", "soft"
"""Keys of colours: they follow the light or dark scheme of whoever looks."""
STAGES = ("stage 1", "stage 2", "stage 3", "stage 4")
LEFT, STEP, TALL = 190, 160, 74


def box(x: float, y: float, width: float, height: float, colour: str, words: str) -> str:
    """A rounded box with a line of text in it."""
    middle = f'x="{x + width / 2}" y="{y + height / 2 + 6}" text-anchor="middle"'
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" class="fill {colour} line pale"/>'
        f"<text {middle}>{words}</text>"
    )


def arrow(x1: float, y1: float, x2: float, y2: float, colour: str = SOFT, dashed: bool = False) -> str:
    """A line with a head."""
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    line = f'x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"'
    return f'<line {line} class="line {colour}" stroke-width="1.5" marker-end="url(#head)"{dashes}/>'


def words(x: float, y: float, text: str, colour: str = SOFT, anchor: str = "start") -> str:
    """A line of text."""
    kind = ' class="soft"' if colour == SOFT else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{kind}>{text}</text>'


def picture() -> str:
    """The whole picture."""
    top, bottom = 60, 290
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" class="paper"/>',
        box(16, top, 110, TALL, ONLINE, "view 1"),
        box(16, bottom, 110, TALL, TARGET, "view 2"),
        arrow(126, top + TALL / 2, LEFT - 6, top + TALL / 2),
        arrow(126, bottom + TALL / 2, LEFT - 6, bottom + TALL / 2),
        words(LEFT, top - 16, "online network: learns by gradient", ONLINE),
        words(LEFT, bottom + TALL + 26, "target network: a moving average of the online network, no gradient", TARGET),
    ]
    for number, stage in enumerate(STAGES):
        x = LEFT + number * STEP
        parts += [box(x, top, 110, TALL, ONLINE, stage), box(x, bottom, 110, TALL, TARGET, stage)]
        if number:
            parts += [arrow(x - 50, y + TALL / 2, x - 6, y + TALL / 2) for y in (top, bottom)]
        middle = (top + TALL + bottom) / 2
        parts += [
            arrow(x + 55, top + TALL, x + 55, middle - 34, ONLINE),
            arrow(x + 55, bottom, x + 55, middle + 34, TARGET),
            box(x - 14, middle - 28, 138, 56, LOSS, f"loss {number + 1}"),
        ]
    parts += [
        words(LEFT - 24, top + TALL + 34, "projector,", ONLINE, "end"),
        words(LEFT - 24, top + TALL + 58, "predictor", ONLINE, "end"),
        words(LEFT - 24, bottom - 22, "projector", TARGET, "end"),
        words(
            16, HEIGHT - 16, "Each loss: global (pooled features) and local (features at the same points of the image)."
        ),
    ]
    head = (
        '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" class="fill {SOFT}"/></marker></defs>'
    )
    style = (
        f"{css()}svg{{font:19px var(--font)}}text{{fill:var(--ink)}}.soft{{fill:var(--soft)}}"
        ".paper{fill:var(--paper)}.pale{fill-opacity:.12}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="A loss at every stage between an online and a target network">'
        f"<style>{style}</style>{head}{''.join(parts)}</svg>\n"
    )


if __name__ == "__main__":
    (Path(__file__).parent / "method.svg").write_text(picture(), encoding="utf-8")
