"""Draw the floors of `training/` from the imports of the code: python docs/draw_floors.py writes docs/floors.svg.

The floors are those that the architecture test enforces. An arrow says that a room imports another one. An arrow that
follows from others (a imports c, because a imports b and b imports c) is left out, to keep the picture readable.
"""

import argparse
import ast
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from ladder_model_cards.figures.style import LIGHT, matplotlib_style

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "training"
WIDTH, ROOM_HEIGHT, FLOOR_HEIGHT = 11.0, 0.46, 0.98
BANDS = (LIGHT.mark, LIGHT.paper)
Rooms = dict[str, set[str]]


def declared_floors() -> list[list[str]]:
    """Read the floors of `training/` from the test that enforces them, ground floor first."""
    (test,) = (ROOT / "tests").rglob("test_architecture.py")
    for node in ast.parse(test.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "FLOORS":
            return [sorted(floor) for floor in ast.literal_eval(node.value)]
    raise ValueError(f"{test} assigns no FLOORS")


def modules(room: str) -> list[Path]:
    """List the files of a room, which is a folder or a single module."""
    single = PACKAGE / f"{room}.py"
    return [single] if single.is_file() else sorted((PACKAGE / room).rglob("*.py"))


def imported_rooms(room: str, known: set[str]) -> set[str]:
    """Find the rooms that a room imports, lazy imports and imports for type checking included."""
    found = set()
    for path in modules(room):
        package = path.relative_to(PACKAGE).parent.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = package[: len(package) - node.level + 1]
                names = [node.module] if node.module else [alias.name for alias in node.names]
                found |= {(*base, *name.split("."))[0] for name in names}
    return (found & known) - {room}


def without_implied(arrows: Rooms) -> Rooms:
    """Leave out each arrow whose target is also reached through another room."""

    def reached(room: str) -> set[str]:
        return arrows[room].union(*(reached(other) for other in arrows[room]))

    return {
        room: {t for t in targets if not any(t in reached(other) for other in targets - {t})}
        for room, targets in arrows.items()
    }


def drawn_arrows() -> Rooms:
    """Compute the arrows of the picture: room to the rooms that it imports, without implied ones."""
    known = {room for floor in declared_floors() for room in floor}
    return without_implied({room: imported_rooms(room, known) for room in known})


def draw(path: Path) -> None:
    """Draw the picture into an SVG or PNG file."""
    with matplotlib.rc_context(matplotlib_style()):
        _draw(path)


def _draw(path: Path) -> None:
    floors, arrows = declared_floors(), drawn_arrows()
    height = FLOOR_HEIGHT * len(floors)
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, height))
    axes.axis("off")
    place = {}
    for number, floor in enumerate(floors):
        bottom = number * FLOOR_HEIGHT
        band = FancyBboxPatch(
            (0, bottom), WIDTH, FLOOR_HEIGHT, boxstyle="square,pad=0", fc=BANDS[number % 2], ec="none"
        )
        axes.add_patch(band)
        axes.text(0.15, bottom + FLOOR_HEIGHT / 2, f"floor {number}", va="center", fontsize=9, color=LIGHT.soft)
        for column, room in enumerate(sort_by_targets(floor, arrows, place)):
            x = 1.0 + (WIDTH - 1.2) * (column + 0.5) / len(floor)
            # A room that is alone stands above what it imports, so that arrows from higher floors pass beside it.
            x = average_place(room, arrows, place) if len(floor) == 1 else x
            place[room] = (x, bottom + FLOOR_HEIGHT / 2)
    for room, (x, y) in place.items():
        box = (x - 0.8, y - ROOM_HEIGHT / 2)
        style = "round,pad=0,rounding_size=0.09"
        axes.add_patch(
            FancyBboxPatch(box, 1.6, ROOM_HEIGHT, boxstyle=style, fc=LIGHT.paper, ec=LIGHT.series[0], lw=1.2, zorder=3)
        )
        axes.text(x, y - 0.02, room, ha="center", va="center", fontsize=12, zorder=4)
    for room, targets in sorted(arrows.items()):
        x, y = place[room]
        for target in sorted(targets):
            to_x, to_y = place[target]
            shift = 0.5 * max(-1.0, min(1.0, (to_x - x) / 4))
            start, end = (x + shift, y - ROOM_HEIGHT / 2), (to_x - shift, to_y + ROOM_HEIGHT / 2)
            far = y - to_y > 1.5 * FLOOR_HEIGHT
            arrow = FancyArrowPatch(
                start,
                end,
                arrowstyle="-|>",
                mutation_scale=9,
                lw=1.0,
                color=LIGHT.series[6] if far else LIGHT.soft,
                connectionstyle=f"arc3,rad={0.12 if far else 0.0}",
                zorder=1 if far else 2,
            )
            arrow.set_gid(f"{room}-to-{target}")  # by these the test knows that the picture is not out of date
            axes.add_patch(arrow)
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)


def sort_by_targets(floor: list[str], arrows: Rooms, place: dict[str, tuple[float, float]]) -> list[str]:
    """Order the rooms of a floor by the average place of the rooms that they import, so that few arrows cross."""
    return sorted(floor, key=lambda room: (average_place(room, arrows, place), room))


def average_place(room: str, arrows: Rooms, place: dict[str, tuple[float, float]]) -> float:
    """Average the horizontal places of the rooms that a room imports."""
    below = [place[target][0] for target in arrows[room] if target in place]
    return sum(below) / len(below) if below else WIDTH / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "floors.svg", help="SVG or PNG file")
    draw(parser.parse_args().output)


if __name__ == "__main__":
    main()
