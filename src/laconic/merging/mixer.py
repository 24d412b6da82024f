"""The mixer: makes the tensors of a plan, block by block, for whoever writes or keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from laconic.errors import LaconicError
from laconic.merging.apply import Context, Link, TensorInfo, or_zero, run_chain
from laconic.merging.draws import Draws
from laconic.merging.stream import TORCH_DTYPES, Block, BlockStream, Wanted
from laconic.merging.survey import Survey
from laconic.merging.workers import Workers
from laconic.plan import Plan, Step
from laconic.registry import get_method
from laconic.statistics.store import Statistics


class Mixer:
    """Runs the chains of a plan's steps. Different steps may be mixed in several threads at once.

    stream: where blocks of the parents come from. pool: runs the surveys of the whole model.
    statistics: what methods need from running models, or None.
    """

    def __init__(
        self, plan: Plan, stream: BlockStream, pool: Workers, statistics: Statistics | None
    ) -> None:
        self._plan, self._stream, self._pool = plan, stream, pool
        self._statistics = statistics
        self._model_surveys: dict[int, Survey] = {}

    def survey_model(self) -> None:
        """Take, over all tensors, the surveys whose scope is the whole model; before any `mix`."""
        merged = [step for step in self._plan.steps if step.stages]
        for index, stage in enumerate(merged[0].stages if merged else ()):
            if stage.knobs.get("scope") == "global":
                self._model_surveys[index] = survey = _survey(_chain(merged[0])[index])
                again = True
                while again:
                    self._pool.run(partial(self._see_model, s, index, survey) for s in merged)
                    again = survey.turn()

    def mix(self, step: Step) -> Iterator[Tensor]:
        """Yield the output of a step in order, in flat blocks of the output dtype.

        Each is rounded once and finite (else LaconicError), and valid until the next one.
        """
        chain = _chain(step)
        surveys = self._survey_step(step, chain)
        for block in self._blocks(step, chain):
            yield _rounded(step, self._run_block(step, chain, block, surveys))

    def _survey_step(self, step: Step, chain: Sequence[Link]) -> dict[int, Survey]:
        surveys = dict(self._model_surveys)
        for index, link in enumerate(chain):
            if link.method.survey and index not in surveys:
                survey = _survey(link)
                again = True
                while again:
                    self._see(step, index, survey, surveys)
                    again = survey.turn()
                surveys[index] = survey
        return surveys

    def _see_model(self, step: Step, index: int, survey: Survey) -> None:
        self._see(step, index, survey, self._survey_step(step, _chain(step)[:index]))

    def _see(self, step: Step, index: int, survey: Survey, before: dict[int, Survey]) -> None:
        """Show a survey every block, cut as the merge cuts it, as the links before leave it."""
        chain = _chain(step)
        for block in self._blocks(step, chain, wanted=getattr(survey, "wants", None)):
            experts = block.experts
            if index:
                sparse = self._run_block(step, chain[:index], block, before)
                experts = sparse.reshape(len(experts), -1)
            survey.see(or_zero(block.base), experts, block.place)

    def _run_block(
        self, step: Step, chain: Sequence[Link], block: Block, surveys: dict[int, Survey]
    ) -> Tensor:
        if not chain:
            return block.experts[0]
        base, experts = block.base, block.experts
        if not _pointwise(chain):
            base = base.view(step.output.shape) if base is not None else None
            experts = experts.view(len(experts), *step.output.shape)
        context = self._context(step, block, lambda i: surveys[i].result(block.place))
        return run_chain(chain, base, experts, context)

    def _blocks(
        self, step: Step, chain: Sequence[Link], wanted: Wanted | None = None
    ) -> Iterator[Block]:
        whole = not _pointwise(chain)
        again = any(link.method.survey for link in chain)
        for block in self._stream.blocks(step, whole=whole, again=again, wanted=wanted):
            self._pool.check()
            yield block

    def _context(
        self, step: Step, block: Block, found: Callable[[int], Any] | None = None
    ) -> Context:
        name = step.output.name
        draws = Draws(self._plan.recipe.seed, name, block.place.start)
        view = self._statistics.view(name) if self._statistics else None
        return Context(draws, TensorInfo(name, step.output.shape), view, found)


def _chain(step: Step) -> list[Link]:
    return [Link(get_method(stage.method), stage.knobs) for stage in step.stages]


def _pointwise(chain: Sequence[Link]) -> bool:
    return all(link.method.pointwise for link in chain)


def _survey(link: Link) -> Survey:
    if link.method.survey is None:
        raise TypeError(f"{link.method.name} declares a scope but no survey")
    survey: Survey = link.method.survey(**link.knobs)
    return survey


def _rounded(step: Step, merged: Tensor) -> Tensor:
    """Round once to the output dtype, flat; refuse what is not finite."""
    out = merged.to(TORCH_DTYPES[step.output.dtype]).reshape(-1)
    if not torch.isfinite(out.sum(dtype=torch.float32)) and not torch.isfinite(out).all():
        raise LaconicError(
            f"tensor '{step.output.name}': the merge is not finite in {step.output.dtype}; "
            "a wider output dtype or smaller coefficients may help"
        )
    return out
