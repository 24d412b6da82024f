"""The program inside a sandbox: a solution that is called, tests that call it, or a whole script.

Runs as `python -I -S -c THIS`, stdlib only. It reads its order from stdin, as
`laconic.grade.code` writes it. A solution and its tests never share a process: what crosses
between them is JSON, so that a solution cannot reach the tests, their verdict, or this code there.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
from collections.abc import Callable
from typing import Any

CONTAINERS: dict[str, type[Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
SCALARS: dict[str, type[Any]] = {"float": float, "complex": complex}


class Opaque:
    """A value that cannot leave its process; equal to nothing."""


def encode(value: Any) -> Any:
    """A plain value as JSON, its type kept; of anything else only that it was something else."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, list):
        return [encode(part) for part in value]
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(part)] for key, part in value.items()]}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    for name, kind in SCALARS.items():
        if isinstance(value, kind):
            return {name: repr(kind(value))}
    for name, kind in CONTAINERS.items():
        if isinstance(value, kind):
            return {name: [encode(part) for part in value]}
    return {"other": type(value).__name__}


def decode(value: Any) -> Any:
    """The value of `encode`'s JSON."""
    if isinstance(value, list):
        return [decode(part) for part in value]
    if not isinstance(value, dict):
        return value
    ((name, inside),) = value.items()
    if name == "dict":
        return {decode(key): decode(part) for key, part in inside}
    if name == "bytes":
        return bytes.fromhex(inside)
    if name in SCALARS:
        return SCALARS[name](inside)
    if name in CONTAINERS:
        return CONTAINERS[name](decode(part) for part in inside)
    return Opaque()


def serve(order: dict[str, Any]) -> None:
    """Load a solution, then answer each line of arguments with its result or its error."""
    requests, answers = _lines()
    try:
        namespace: dict[str, Any] = {"__name__": "solution"}
        exec(compile(order["source"], "solution", "exec"), namespace)
        own = namespace["Solution"]() if order["method"] else None
        function = getattr(own, order["name"]) if order["method"] else namespace[order["name"]]
    except BaseException as error:
        answers({"raised": type(error).__name__})
        return
    answers({"ready": True})
    for line in requests:
        try:
            answers({"value": encode(function(*decode(json.loads(line)["call"])))})
        except BaseException as error:
            answers({"raised": type(error).__name__})


def check(order: dict[str, Any]) -> None:
    """Run tests that call a function of another process, and say whether they went through.

    null: the tests themselves cannot be loaded.
    """
    requests, answers = _lines()

    def candidate(*arguments: Any) -> Any:
        answers({"call": encode(list(arguments))})
        reply = json.loads(next(requests))
        if "raised" in reply:
            kind = getattr(builtins, reply["raised"], Exception)
            raise kind if issubclass(kind, Exception) else RuntimeError(reply["raised"])
        return decode(reply["value"])

    answers({"verdict": _passes(order, candidate)})


def _passes(order: dict[str, Any], candidate: Callable[..., Any]) -> bool | None:
    namespace: dict[str, Any] = {"__name__": "tests"}
    try:
        exec(compile(order["prompt"], "prompt", "exec"), namespace)
        namespace[order["name"]] = candidate
        exec(compile(order["test"], "test", "exec"), namespace)
        test = namespace["check"]
    except Exception:
        return None
    try:
        test(candidate)
    except Exception:
        return False
    return True


def run(order: dict[str, Any]) -> None:
    """Run a script as the main program; what is left on stdin is its input."""
    try:
        exec(compile(order["source"], "solution", "exec"), {"__name__": "__main__"})
    except SystemExit:
        return


def _lines() -> tuple[Any, Callable[[Any], None]]:
    """Lines of stdin, and a way to answer on stdout; what is printed goes nowhere."""
    requests = os.fdopen(os.dup(0))
    channel = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)

    def answer(value: Any) -> None:
        channel.write(json.dumps(value) + "\n")
        channel.flush()

    return requests, answer


def _order() -> dict[str, Any]:
    """Eight digits, the length of the JSON that follows."""
    return dict(json.loads(_exactly(int(_exactly(8)))))


def _exactly(count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += os.read(0, count - len(data)) or sys.exit("no order")
    return data


if __name__ == "__main__":
    sys.set_int_max_str_digits(0)
    received = _order()
    {"serve": serve, "check": check, "run": run}[received["role"]](received)
