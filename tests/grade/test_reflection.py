from __future__ import annotations

import pytest

from laconic.grade.reflection import count_reflections


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Wait, no. WAIT", 2),
        ("re-examine it, recap it, double-check it", 3),
        ("let me check; Let me just check; let me\nverify; let me just verify", 4),
        ("waiting waiters await; recapture; let me checkmate", 0),
        ("let me see", 0),
        ("", 0),
        (" Wait, let me double-check: 3", 2),
    ],
)
def test_words_are_counted_whole_in_any_case(text: str, count: int) -> None:
    assert count_reflections(text) == count
