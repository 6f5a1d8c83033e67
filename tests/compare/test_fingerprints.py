"""What is written into JSON is what JSON gives back."""

import json
import math
from pathlib import Path

import numpy as np

from ladder_training.compare.fingerprints import cell_value
from ladder_training.files import json_value, looks_like_path


def test_values_are_those_that_json_gives_back() -> None:
    value = {1: (0.123456789, np.float32(0.5)), "nan": math.nan, "inf": [math.inf, True, 7, None], "path": Path("a/b")}
    converted = json_value(value, lambda number: round(number, 3))
    assert converted == {"1": [0.123, 0.5], "nan": None, "inf": [None, True, 7, None], "path": "a/b"}
    assert json.loads(json.dumps(converted, allow_nan=False)) == converted
    assert cell_value([123456.789, 0.000123456789]) == [123457.0, 0.000123457]


def test_what_can_only_be_a_path() -> None:
    paths = ("./a", "../a", "/a", "~/a", "a/b/c", ".", "C:\\photos", "photos\\train")
    assert [name for name in (*paths, "user/name", "digits", "data.parquet") if looks_like_path(name)] == [*paths]
