"""Every number option has a range, and no option lets a number pass that is none."""

import math
from dataclasses import Field
from typing import Any

import pytest

from ladder_training.cli.commands import COMMANDS
from ladder_training.compare.evaluations import ListedEvaluation
from ladder_training.config.fields import check_value, default_of, fields_of, read_words
from ladder_training.config.ranges import LARGEST_WHOLE, Range
from ladder_training.config.recipe import OWN_GROUPS, all_fields
from ladder_training.errors import UserError

OPTION_CLASSES = dict.fromkeys(
    [
        *OWN_GROUPS.values(),
        ListedEvaluation,
        *(kind for row in COMMANDS.values() for kind in (row.options, *(row.tasks or {}).values())),
    ]
)


def takes_numbers(annotation: Any) -> bool:
    words = str(annotation).replace("float | int", "float")
    return "float" in words or "int" in words


def numbers() -> list[Any]:
    """Every option of ours that takes numbers, and the fields of transformers' arguments that do."""
    own = [
        pytest.param(kind.__name__, name, declared, id=f"{kind.__name__}.{name}")
        for kind in OPTION_CLASSES
        for name, declared in fields_of(kind).items()
        if takes_numbers(declared[0]) and name != "fields"
    ]
    inherited = [
        pytest.param("", name, declared, id=name)
        for name, declared in all_fields().items()
        if takes_numbers(declared[0]) and "range" in declared[1].metadata
    ]
    return [*own, *inherited]


@pytest.mark.parametrize(("kind", "name", "declared"), numbers())
def test_every_number_has_a_range_that_holds_its_default(
    kind: str, name: str, declared: tuple[Any, Field[Any]]
) -> None:
    annotation, item = declared
    allowed = item.metadata["range"]
    if kind and not item.metadata.get("choices"):
        assert any(limit is not None for limit in (allowed.minimum, allowed.above, allowed.length)), "no lower limit"
    allowed.check(default_of(item), name)
    floats = "float" in str(annotation)
    wrong = ["nan", "inf", "-inf"] if floats else [str(10 * LARGEST_WHOLE)]
    wrong += ["-1e301"] if floats else ["-" + "9" * 30]
    for word in wrong:
        words = [word] * (allowed.length or 1)
        with pytest.raises(UserError, match=name) as caught:
            read_words(words, declared, name)
        assert "\n" not in str(caught.value)
        value = float(word) if floats else int(word)
        with pytest.raises(UserError, match=name):
            check_value(
                [value] * (allowed.length or 1) if allowed.length or "list" in str(annotation) else value,
                declared,
                name,
            )


@pytest.mark.parametrize(
    ("allowed", "value", "message"),
    [
        (Range(minimum=1), 0, "n must be at least 1, got 0"),
        (Range(minimum=1), math.nan, "n must be at least 1, got nan"),
        (Range(minimum=1), math.inf, "n must be a finite number, got inf"),
        (Range(above=0), 0.0, "n must be greater than 0, got 0.0"),
        (Range(minimum=0, below=1), 1.0, "n must be at least 0 and less than 1, got 1.0"),
        (Range(above=0, maximum=0.9), 0.95, "n must be greater than 0 and at most 0.9, got 0.95"),
        (Range(above=0), [1.0, math.nan], "n must be greater than 0, got nan"),
        (Range(above=0), [], "n is empty: give at least one number"),
        (Range(above=0, length=2), [1.0], "n must be 2 numbers, got 1"),
        (Range(), -math.inf, "n must be a finite number, got -inf"),
    ],
)
def test_what_is_out_of_range_is_said(allowed: Range, value: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        allowed.check(value, "n")
    assert str(caught.value) == message


def test_what_is_in_range_passes() -> None:
    for value in (None, 1, 1.0, [1, 2.5], "text", True):
        Range(minimum=1, maximum=3).check(value, "n")
