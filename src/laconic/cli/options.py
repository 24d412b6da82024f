"""Options and output that commands share."""

from __future__ import annotations

import json
from typing import Any

import click

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON value on stdout.")


def show(value: Any) -> None:
    """Print text, or anything else as JSON, on stdout."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    print(text, flush=True)
