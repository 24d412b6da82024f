"""Types of knobs: what a hyper-parameter may be, in one place."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Share = Annotated[float, Field(ge=0, le=1)]
"""A share of entries, from 0 to 1."""

OpenShare = Annotated[float, Field(ge=0, lt=1)]
"""A share of entries, from 0 up to but not 1."""

Weight = Annotated[float, Field(ge=0, le=1)]
"""An interpolation weight, from 0 to 1."""

Scale = Annotated[float, Field(ge=-10, le=10)]
"""A coefficient on a task vector; 1 is the fine-tuned model itself."""
