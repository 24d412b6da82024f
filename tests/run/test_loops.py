from __future__ import annotations

import random

import pytest

from laconic.run.loops import Loop, find_loop


def slow_loop(tokens: list[int]) -> Loop | None:
    """By definition: try every span and every period."""
    for span in range(len(tokens), 63, -1):
        end = tokens[-span:]
        for period in range(1, span // 3 + 1):
            if end[period:] == end[:-period]:
                return Loop(period, span)
    return None


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], None),
        ([7] * 63, None),
        ([7] * 64, Loop(1, 64)),
        ([1, 2, 3] * 30, Loop(3, 90)),
        ([9, *[1, 2, 3] * 30, 1], Loop(3, 91)),  # the last copy is cut
        (list(range(30)) * 2 + list(range(29)), None),  # not three whole copies
        (list(range(30)) * 3, Loop(30, 90)),
        ([1, 2] * 50 + [5], None),  # it went on
    ],
)
def test_loops_by_hand(tokens: list[int], expected: Loop | None) -> None:
    assert find_loop(tokens) == expected


def test_equal_to_the_definition() -> None:
    random.seed(0)
    found = 0
    for _ in range(300):
        block = [random.randrange(3) for _ in range(random.randrange(1, 40))]
        copies = random.uniform(1.5, 5)
        tokens = (block * 6)[: int(len(block) * copies)]
        tokens = [random.randrange(3) for _ in range(random.randrange(30))] + tokens
        assert find_loop(tokens) == slow_loop(tokens)
        found += find_loop(tokens) is not None
    assert 50 < found < 250


def test_long_responses_are_searched_at_their_end_only() -> None:
    assert find_loop([5] * 100_000) == Loop(1, 4096)
    assert find_loop([*range(100_000)]) is None
