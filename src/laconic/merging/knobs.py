"""Types of knobs: what a hyper-parameter may be, in one place."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Share = Annotated[float, Field(ge=0, le=1)]
"""A share of entries, from 0 to 1."""

Weight = Annotated[float, Field(ge=0, le=1)]
"""An interpolation weight, from 0 to 1."""

Scale = Annotated[float, Field(ge=-10, le=10)]
"""A coefficient on a task vector; 1 is the fine-tuned model itself."""

Positive = Annotated[float, Field(gt=0, le=1000)]
"""A temperature or steepness, above 0."""

Threshold = Annotated[float, Field(ge=0)]
"""A bound that nothing below zero can be."""

Ratio = Annotated[float, Field(gt=0, le=1)]
"""A share that must leave something: above 0, up to 1."""

Count = Annotated[int, Field(ge=1)]
"""How often, or how many; at least once."""
