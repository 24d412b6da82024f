"""Programming problems in the layouts their authors gave them, and the tests that settle them."""

from __future__ import annotations

import base64
import binascii
import json
import pickletools
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from laconic.records import Record

FENCE = "```python"
LARGEST = 2**30
"""In bytes, of one problem's tests when unpacked."""
TEXT = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
HARMLESS = ("PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP")


@dataclass(frozen=True)
class Case:
    """One test: what a solution is given, and what it must print or return."""

    input: str
    output: str


@dataclass(frozen=True)
class Problem:
    """What settles whether a solution is right.

    check: Python that defines `check(candidate)`, run after `prompt`; else `cases` do. name: the
    function that is called; None for a script, which reads stdin and writes stdout.
    """

    name: str | None = None
    prompt: str = ""
    check: str = ""
    cases: tuple[Case, ...] = ()


def is_human_eval(row: Record) -> bool:
    """Whether a row is in HumanEval's layout."""
    return {"prompt", "test", "entry_point"} <= row.keys()


def is_live_code_bench(row: Record) -> bool:
    """Whether a row is in LiveCodeBench's layout (code_generation_lite)."""
    return {"question_content", "starter_code", "public_test_cases"} <= row.keys()


def human_eval_question(row: Record) -> str:
    """A function to be completed, as a question."""
    return (
        "Complete this Python function. Answer with the whole function in one fenced "
        f"{FENCE} block.\n\n{FENCE}\n{row['prompt'].rstrip()}\n```"
    )


def human_eval_answer(row: Record) -> str:
    """The tests of a HumanEval row, as a gold answer: `read_problem` reads it."""
    problem = Problem(row["entry_point"], row["prompt"], row["test"])
    return json.dumps({k: v for k, v in asdict(problem).items() if v})


def live_code_bench_question(row: Record) -> str:
    """A contest problem, and how its solution is given its input."""
    question = f"Solve this problem in Python.\n\n{row['question_content'].strip()}\n\n"
    if row["starter_code"].strip():
        return (
            f"{question}Complete this code, and answer with all of it in one fenced {FENCE} "
            f"block.\n\n{FENCE}\n{row['starter_code'].rstrip()}\n```"
        )
    return (
        f"{question}Read the input from stdin and write the answer to stdout. Answer with the "
        f"whole program in one fenced {FENCE} block."
    )


def live_code_bench_answer(row: Record) -> str:
    """The tests of a LiveCodeBench row, packed as they came. Raises ValueError for bad ones."""
    metadata = json.loads(row.get("metadata") or "{}")
    packed = [row["public_test_cases"], row.get("private_test_cases") or "[]"]
    answer = json.dumps({"name": metadata.get("func_name"), "packed": packed})
    if not read_problem(answer).cases:
        raise ValueError("it has no test cases")
    return answer


def read_problem(answer: str) -> Problem:
    """The problem that a gold answer holds. Raises ValueError for one that holds none."""
    found = json.loads(answer)
    if not isinstance(found, dict):
        raise ValueError("expected the tests of a programming problem")
    cases = tuple(case for packed in found.get("packed", ()) for case in _cases(packed))
    return Problem(found.get("name"), found.get("prompt", ""), found.get("check", ""), cases)


def _cases(packed: str) -> Iterator[Case]:
    text = packed if packed.lstrip().startswith("[") else _unpacked(packed)
    for case in json.loads(text):
        yield Case(case["input"], case["output"])


def _unpacked(packed: str) -> str:
    """The text in base64 of zlib of a pickle, which is read as data and never unpickled."""
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(packed, validate=True), LARGEST)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"test cases cannot be unpacked: {error}") from None
    if not unpacker.eof:
        raise ValueError(f"test cases are torn, or larger than {LARGEST} bytes")
    return _pickled_text(data)


def _pickled_text(data: bytes) -> str:
    """The one text that a pickle holds. Raises ValueError when it holds or does anything else."""
    texts: list[Any] = []
    try:
        for code, argument, _ in pickletools.genops(data):
            if code.name in TEXT:
                texts.append(argument)
            elif code.name not in HARMLESS:
                raise ValueError(f"test cases are a pickle with {code.name}; expected one text")
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"test cases are no pickle: {error}") from None
    if len(texts) != 1:
        raise ValueError(f"test cases are a pickle of {len(texts)} texts; expected one")
    return str(texts[0])
