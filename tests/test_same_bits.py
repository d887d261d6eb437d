"""The script that compares two versions of the code: what may move in a snapshot, and what may not."""

import pytest
from same_bits import compare
from same_bits_runs import leaves

SAVED = {"iterator": {"position": 3, "order": [2, 0]}, "best": 0.25, "count": 4, "unused": None}


def compared(new, part="snapshot", **kwargs):
    differences, notes = compare({part: leaves(SAVED)}, {part: leaves(new)}, **kwargs)
    return [path for _, path, _ in differences], [path for _, path, _ in notes]


def test_a_value_may_move_and_a_key_without_result_may_go():
    moved = {"parts": {"iterator": SAVED["iterator"]}, "trigger": {"best_value": 0.25, "count": 4}}
    assert compared(moved) == ([], ["unused"])


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"best": 0.25000000000000006}, "best"),
        ({"best": -0.0}, "best"),
        ({"iterator": {"place": SAVED["iterator"] | {"position": 4}}}, "iterator/position"),
        ({"iterator": {"position": 3, "order": [0, 2]}}, "iterator/order/0"),
    ],
)
def test_another_value_is_found_even_where_it_moved(change, path):
    assert path in compared(SAVED | change)[0]


def test_a_result_may_neither_vanish_nor_appear():
    assert compared({key: value for key, value in SAVED.items() if key != "best"})[0] == ["best"]
    assert compared(SAVED | {"more": 0.1})[0] == ["more"]
    assert compared(SAVED | {"more": 0.1}, allow=["snapshot/more"])[0] == []


def test_outside_of_snapshots_nothing_may_move():
    assert compared({**SAVED, "count": 5}, "log")[0] == ["count"]
    assert compared({key: value for key, value in SAVED.items() if key != "unused"}, "log")[0] == ["unused"]
