"""Means, paired intervals and steps to an accuracy, against figures worked out by hand and by scipy."""

import math

import pytest
from scipy import stats

from ladder_training.compare.cells import headline_metric, metrics_of
from ladder_training.compare.grid import verdict
from ladder_training.compare.statistics import paired_difference, steps_to_reach, summarise, t_quantile
from ladder_training.compare.summary import mean_curves
from ladder_training.compare.training_cell import LOG_POINTS, thinned_log


def test_mean_and_sample_deviation_by_hand() -> None:
    found = summarise([1.0, 2.0, 6.0])
    assert (found.mean, found.count) == (3.0, 3)
    assert found.std == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert summarise([4.0]).std is None
    assert summarise([]) == summarise(())


@pytest.mark.parametrize(("degrees", "table"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262)])
def test_t_quantiles_are_those_of_the_tables(degrees: int, table: float) -> None:
    assert t_quantile(0.975, degrees) == pytest.approx(table, abs=5e-4)


def test_paired_difference_is_scipys_interval_over_common_seeds() -> None:
    method = {0: 0.52, 1: 0.55, 2: 0.61, 9: 0.99}
    baseline = {0: 0.50, 1: 0.51, 2: 0.58, 7: 0.01}
    found = paired_difference(method, baseline)
    expected = stats.ttest_rel([0.52, 0.55, 0.61], [0.50, 0.51, 0.58]).confidence_interval(0.95)
    assert found.count == 3
    assert found.values == pytest.approx((0.02, 0.04, 0.03))
    assert found.mean == pytest.approx(0.03)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    # By hand: 0.03 -+ 4.303 * 0.01 / sqrt(3).
    assert found.low == pytest.approx(0.03 - 4.30265 * 0.01 / math.sqrt(3), abs=1e-6)


def test_no_interval_from_one_seed_and_nothing_from_none() -> None:
    one = paired_difference({3: 0.5}, {3: 0.25, 4: 0.1})
    assert (one.mean, one.low, one.high, one.count) == (0.25, None, None, 1)
    assert paired_difference({3: 0.5}, {4: 0.1}).mean is None


@pytest.mark.parametrize(
    ("values", "goal", "expected"),
    [
        ([0.1, 0.3, 0.5], 0.4, 150.0),
        ([0.1, 0.3, 0.5], 0.3, 100.0),
        ([0.1, 0.3, 0.5], 0.05, 0.0),
        ([0.1, 0.3, 0.5], 0.6, None),
        ([0.1, 0.6, 0.2], 0.35, 50.0),
        ([0.1, None, 0.5], 0.3, 100.0),
        ([], 0.3, None),
    ],
)
def test_steps_to_reach_are_straight_between_looks(values: list, goal: float, expected: float | None) -> None:
    found = steps_to_reach([0, 100, 200][: len(values)], values, goal)
    assert found == (None if expected is None else pytest.approx(expected))


def test_the_headline_is_the_last_stage_even_where_another_is_better() -> None:
    metrics = {name: {"accuracy": value} for name, value in (("stage1", 0.9), ("stage2", 0.5), ("all", 0.95))}
    found = metrics_of({"task": "linear", "metrics": metrics})
    assert found == {"accuracy stage1": 0.9, "accuracy stage2": 0.5, "accuracy all": 0.95}
    assert headline_metric(list(found)) == "accuracy stage2"


def test_figures_of_dense_tasks() -> None:
    scores = {"AP": 0.2, "AP50": 0.4, "AP75": 0.1, "AR100": 0.9}
    found = metrics_of({"task": "detection", "metrics": {"box": scores, "mask": {**scores, "AP": 0.15}}})
    assert list(found) == ["box AP", "box AP50", "box AP75", "mask AP", "mask AP50", "mask AP75"]
    assert (found["box AP"], found["mask AP"]) == (0.2, 0.15)
    assert headline_metric(list(found)) == "box AP"
    row = {"mean_iou": 0.3, "pixel_accuracy": 0.8, "mean_class_accuracy": 0.4}
    constant = {"mean_iou": 0.1, "pixel_accuracy": 0.7, "mean_class_accuracy": 0.2}
    found = metrics_of({"task": "segmentation", "metrics": {"constant": constant, "upernet": row}})
    assert found == {"mIoU": 0.3, "pixel accuracy": 0.8}
    assert headline_metric(list(found)) == "mIoU"


def test_a_log_is_thinned_to_few_steps_with_the_last_and_with_every_look() -> None:
    log = [{"step": step, "loss": 2.0 * step, "loss/stage4.global": float(step)} for step in range(1, 1001)]
    log += [{"step": step, "knn/stage4": step / 1000, "knn/all": 0.5} for step in range(0, 1001, 5)]
    found = thinned_log(log)
    assert len(found["loss"]["step"]) <= LOG_POINTS
    assert found["loss"]["step"][-1] == 1000
    assert found["loss"]["stage4.global"] == [float(step) for step in found["loss"]["step"]]
    assert found["loss"]["total"] == [2.0 * step for step in found["loss"]["step"]]
    assert found["knn"]["step"] == list(range(0, 1001, 5))
    assert list(found["knn"]) == ["step", "stage4", "all"]
    assert "std" not in found


def test_curves_are_means_over_the_finished_runs_at_their_common_steps() -> None:
    cells = [
        {"status": "finished", "log": {"knn": {"step": [0, 5, 10], "all": [0.1, 0.2, 0.3]}}},
        {"status": "finished", "log": {"knn": {"step": [0, 10, 20], "all": [0.3, 0.5, 0.9]}}},
        {"status": "collapsed", "log": {"knn": {"step": [0, 10], "all": [0.0, 0.0]}}},
        None,
    ]
    found = mean_curves(cells, "knn")["all"]
    assert found["step"] == [0, 10]
    assert found["mean"] == pytest.approx([0.2, 0.4])
    assert found["std"] == pytest.approx([0.2 / math.sqrt(2)] * 2)


def test_verdict_of_a_short_run() -> None:
    log = [
        {"step": 0, "std/stage1.local": 0.01, "std/stage4.global": 0.02},  # before training: no collapse
        {"step": 5, "std/stage1.local": 0.3, "std/stage4.global": 0.05, "knn/all": 0.2},
        {"step": 10, "std/stage1.local": 0.4, "std/stage4.global": 0.6, "knn/all": 0.7},
    ]
    found = verdict(log, "finished", 0.1)
    assert found["knn"] == {"all": 0.7}
    assert (found["min_std"], found["collapsed"]) == (0.05, False)
    assert found["std"] == {"stage1.local": 0.4, "stage4.global": 0.6}
    assert verdict(log[:2], "finished", 0.1)["collapsed"]
    assert verdict(log, "stopped", 0.1)["collapsed"]
    assert verdict([{**log[2], "std/stage1.local": math.nan}], "finished", 0.1)["collapsed"]


def test_the_mean_curve_can_reach_what_one_of_its_seeds_does_not() -> None:
    from types import SimpleNamespace

    from ladder_training.compare.report import reach_table
    from ladder_training.compare.summary import reach_rows

    def cell(*accuracy: float) -> dict:
        log = {"knn": {"step": [0, 50, 100], "all": list(accuracy)}}
        return {"status": "finished", "steps": 100, "seconds": 10.0, "log": log}

    byol, ladder = SimpleNamespace(name="byol"), SimpleNamespace(name="ladder")
    plan = SimpleNamespace(baseline=byol, methods=[byol, ladder], seeds=[0, 1])
    pretrain = {
        ("byol", 0): cell(0.0, 0.4, 0.6),
        ("byol", 1): cell(0.0, 0.2, 0.2),
        ("ladder", 0): cell(0.0, 0.5, 0.5),  # never reaches 0.6
        ("ladder", 1): cell(0.0, 0.5, 0.7),
    }
    rows = reach_rows(plan, pretrain)
    found = next(row for row in rows if row["method"] == "ladder")
    # The mean of BYOL ends at 0.4; that of the Ladder is 0.5 at step 50.
    assert (found["reached"], found["mean"], found["mean_curve"]) == (1, None, pytest.approx(0.4))
    summary = {"methods": ["byol", "ladder"], "steps_to_reach": rows}
    assert reach_table(summary)[1][1] == ["ladder", "reached by 1 of 2; their mean at 0.40"]


def test_what_rounds_to_nothing_has_no_minus() -> None:
    from ladder_training.compare.report import results_table

    scores = {"mean": 0.5, "std": 0.01, "count": 2, "collapsed": []}
    difference = {"mean": -1e-17, "low": -0.12, "high": 0.0004}
    row = {"evaluation": "knn-digits", "task": "knn", "dataset": "digits", "metric": "accuracy all", "headline": False}
    methods = {"byol": scores, "ladder": {**scores, "difference": difference}}
    summary = {"baseline": "byol", "methods": [*methods], "seeds": [0, 1], "rows": [{**row, "methods": methods}]}
    assert results_table(summary)[1][0][-1] == "+0.0 [-12.0, +0.0]"
