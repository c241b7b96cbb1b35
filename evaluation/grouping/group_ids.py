"""Ids of groups that stay when the grouping runs again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from evaluation.grouping.group_vectors import Groups


def keep_group_ids(
    groups: Groups, row_keys: Sequence[str], previous: Mapping[str, str], make_id: Callable[[], str]
) -> list[str]:
    """The id of each group: a group inherits the id of the old group that most of its rows had.

    Each old id goes to one new group at most, the one that shares most rows with the old group: of two halves
    of a split the larger keeps it, and of two that became one the id of the larger remains. Ties go to the
    larger group, then to the id that comes first as text.

    Args:
        groups: of the rows.
        row_keys: [n], what each row was called before and is called now.
        previous: the old group's id of each key; rows that were noise or new are not in it.
        make_id: a new id, called for each group that inherits none.
    """
    shared: Counter[tuple[int, str]] = Counter()
    for key, group in zip(row_keys, groups.of_row.tolist(), strict=True):
        if group >= 0 and key in previous:
            shared[group, previous[key]] += 1
    ids: dict[int, str] = {}
    taken: set[str] = set()
    for (group, old), _ in sorted(shared.items(), key=lambda entry: (-entry[1], entry[0])):
        if group not in ids and old not in taken:
            ids[group] = old
            taken.add(old)
    return [ids[group] if group in ids else make_id() for group in range(len(groups.sizes))]
