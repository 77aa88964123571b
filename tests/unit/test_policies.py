"""What a bank's configuration says of its router."""

from __future__ import annotations

import pytest

from adapterbank.config.router import RouterConfig
from adapterbank.errors import InputError


@pytest.mark.parametrize(
    ("asked", "depth", "expected"),
    [
        (None, 12, (6, 12)),
        (None, 24, (12, 24)),
        (None, 1, (1,)),
        (None, 2, (1, 2)),
        ((12,), 12, (12,)),
        ((10, 3, 10), 12, (3, 10, 12)),  # the last is always one
    ],
)
def test_records_are_of_the_middle_and_the_last_block_unless_a_bank_says_otherwise(
    asked: tuple[int, ...] | None, depth: int, expected: tuple[int, ...]
) -> None:
    assert RouterConfig(blocks=asked).recorded(depth) == expected


def test_a_block_that_the_backbone_has_not_is_refused() -> None:
    with pytest.raises(InputError, match="12 blocks") as caught:
        RouterConfig(blocks=(6, 13)).recorded(12)
    assert caught.value.fix is not None
    assert "router.blocks" in caught.value.fix


def test_the_task_of_the_reference_is_set_aside() -> None:
    assert RouterConfig().aside is None
    assert RouterConfig(reference="places@3").aside == "places"
