"""A part held out by content: copies of an image stay together, wherever their files lie."""

import pytest
from PIL import Image

from helpers.pictures import natural_image
from ladder_training import load_image_stream
from ladder_training.data.held_out import hold_out
from ladder_training.errors import UserError


def test_copies_of_an_image_are_on_one_side(tmp_path):
    for index in range(30):
        for copy in ("a", "b"):
            path = tmp_path / "photos" / f"class{index % 2}" / f"{copy}{(index * 7) % 30}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(natural_image(16, 16, seed=index)).save(path)
    data = load_image_stream(tmp_path / "photos")
    rest, held = hold_out(data, 0.2, seed=0, label_column="label")
    assert (len(rest), len(held)) == (48, 12)
    assert [held["label"].count(number) for number in (0, 1)] == [6, 6]
    sides = [{image.tobytes() for image in part["image"]} for part in (rest, held)]
    assert [len(side) for side in sides] == [24, 6] and not sides[0] & sides[1]
    moved = tmp_path / "elsewhere"
    (tmp_path / "photos").rename(moved)
    assert {
        image.tobytes() for image in hold_out(load_image_stream(moved), 0.2, 0, label_column="label")[1]["image"]
    } == (sides[1])


def test_a_class_of_one_image_is_not_held_out(tmp_path):
    for index in range(8):
        path = tmp_path / ("rare" if index == 0 else "often") / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(natural_image(16, 16, seed=index)).save(path)
    data = load_image_stream(tmp_path)
    rest, held = hold_out(data, 0.2, seed=0, label_column="label")
    assert held["label"] == [0] and sorted(rest["label"]) == [0] * 6 + [1]
    with pytest.raises(UserError, match="too few"):
        hold_out(data.select(range(4)), 0.2, 0)
    with pytest.raises(UserError, match="no image can be held out"):
        hold_out(data.select([0] * 6), 0.2, 0)


def test_an_image_that_is_in_two_classes_leaves_one_of_each(tmp_path):
    pictures = [Image.fromarray(natural_image(16, 16, seed=index)) for index in range(10)]
    for twice in range(10):
        folder = tmp_path / str(twice)
        for name, picture in [
            *((f"often/{n}.png", p) for n, p in enumerate(pictures)),
            ("rare/0.png", pictures[twice]),
        ]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            picture.save(folder / name)
        rest, held = hold_out(load_image_stream(folder), 0.2, seed=0, label_column="label")
        assert set(rest["label"]) == {0, 1} and len(held) in (1, 2)
