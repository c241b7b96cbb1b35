"""Batches of queries and items."""

from __future__ import annotations

import numpy as np

from training.batches.role_batches import draw_role_batches

LABELS = np.repeat(np.arange(9), 6)
IS_QUERY = np.tile([True, True, True, True, False, False], 9)
IS_QUERY[:6] = True  # class 0 has no item


def test_each_class_gives_as_many_queries_as_items_and_comes_once() -> None:
    for rows in draw_role_batches(LABELS, IS_QUERY, 16, 4, 5, 0, 0):
        classes, counts = np.unique(LABELS[rows], return_counts=True)
        assert (len(classes), counts.tolist(), 0 in classes) == (4, [4] * 4, False)
        assert len(np.unique(rows)) == 16
        assert (np.bincount(LABELS[rows][IS_QUERY[rows]], minlength=9)[classes] == 2).all()


def test_all_classes_and_all_rows_come_before_one_comes_again() -> None:
    batches = draw_role_batches(LABELS, IS_QUERY, 6, 2, 8, 0, 0)  # 8 batches of 3 classes are 3 passes of 8
    counts = np.bincount(LABELS[np.concatenate(batches)], minlength=9) // 2
    assert counts.tolist() == [0, *[3] * 8]
    queries = [rows[IS_QUERY[rows]] for rows in batches]
    assert np.unique(np.concatenate(queries), return_counts=True)[1].max() == 1


def test_batches_follow_from_seed_and_epoch() -> None:
    def draw(seed: int, epoch: int) -> list[list[int]]:
        return [rows.tolist() for rows in draw_role_batches(LABELS, IS_QUERY, 8, 2, 4, seed, epoch)]

    assert draw(1, 2) == draw(1, 2)
    assert draw(1, 2) != draw(1, 3)
    assert draw(1, 2) != draw(2, 2)


def test_a_batch_larger_than_the_data_holds_every_class_that_can_learn() -> None:
    (rows,) = draw_role_batches(LABELS, IS_QUERY, 1000, 4, 1, 0, 0)
    assert np.unique(LABELS[rows]).tolist() == list(range(1, 9))
