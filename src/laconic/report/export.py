"""A run in the sample format of other harnesses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from laconic.errors import unknown
from laconic.grade.folder import RunFolder
from laconic.records import write_records

EXPORTS = ("lm-eval",)


def export(run: str | Path, out: str | Path, format: str = "lm-eval") -> list[Path]:
    """Write a graded run as OUT/samples_TASK.jsonl, the files of lm-eval's --log_samples.

    One line per question, with all of its responses; a response that could not be graded is left
    out of the metric. Raises LaconicError for another format or an incomplete run.
    """
    if format not in EXPORTS:
        raise unknown("export format", format, EXPORTS)
    folder = RunFolder(Path(run))
    grades = {(one.id, one.draw): one for one in folder.read_grades()}
    texts = {one.key: one.text for one in folder.read_completions()}
    tasks: dict[str, list[dict[str, Any]]] = {}
    for asked in folder.read_questions():
        keys = sorted(key for key in grades if key[0] == asked.id)
        verdicts = [grades[key].correct for key in keys]
        graded = [float(verdict) for verdict in verdicts if verdict is not None]
        lines = tasks.setdefault(asked.task, [])
        lines.append(
            {
                "doc_id": len(lines),
                "doc": {"question": asked.prompt, "level": asked.level, "subject": asked.subject},
                "target": asked.answer,
                "arguments": {"gen_args_0": {"arg_0": asked.prompt, "arg_1": {}}},
                "resps": [[texts[key] for key in keys]],
                "filtered_resps": [grades[key].answer for key in keys],
                "filter": "none",
                "metrics": ["exact_match"],
                "exact_match": sum(graded) / len(graded) if graded else None,
            }
        )
    Path(out).mkdir(parents=True, exist_ok=True)
    written = []
    for task, lines in tasks.items():
        written.append(Path(out) / f"samples_{task}.jsonl")
        write_records(written[-1], lines)
    return written
