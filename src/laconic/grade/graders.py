"""The rules by which answers are judged, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from laconic.errors import unknown
from laconic.grade import answers
from laconic.grade.extraction import Extracted
from laconic.grade.qwen import VERSION as QWEN_VERSION
from laconic.grade.qwen import judge as judge_as_qwen

Judge = Callable[[str, str], tuple[bool | None, Extracted]]
"""From a gold answer and a response to the verdict (None: not graded) and what was found."""
DEFAULT = "laconic"


@dataclass(frozen=True)
class Grader:
    """Rules with a name; `version` is raised whenever a verdict may change."""

    name: str
    version: str
    judge: Judge

    def to_dict(self) -> dict[str, str]:
        """What a run records: verdicts of different rules are not comparable."""
        return {"name": self.name, "version": self.version}


GRADERS = {
    one.name: one
    for one in (
        Grader(DEFAULT, answers.VERSION, answers.judge),
        Grader("qwen_compat", QWEN_VERSION, judge_as_qwen),
    )
}


def get_grader(name: str) -> Grader:
    """The grader of that name. Raises LaconicError for an unknown one."""
    if name not in GRADERS:
        raise unknown("grader", name, GRADERS)
    return GRADERS[name]
