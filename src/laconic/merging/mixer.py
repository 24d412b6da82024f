"""The mixer: makes the tensors of a plan, block by block, for whoever writes or keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from laconic.errors import LaconicError
from laconic.merging.apply import Context, Link, TensorInfo, or_zero, run_chain, unit_of
from laconic.merging.draws import Draws
from laconic.merging.memory import Room, whole_bytes
from laconic.merging.stream import TORCH_DTYPES, Block, BlockStream
from laconic.merging.survey import Survey
from laconic.merging.workers import Workers
from laconic.plan import Plan, Step
from laconic.registry import get_method
from laconic.statistics.store import Statistics

Space = Callable[[int], Tensor]


class Mixer:
    """Runs the chains of a plan's steps. Different steps may be mixed in several threads at once.

    stream: where blocks of the parents come from. pool: runs the surveys of the whole model.
    statistics: what methods need from running models, or None. room: what tensors that are merged
    whole share; without limit unless given.
    """

    def __init__(
        self,
        plan: Plan,
        stream: BlockStream,
        pool: Workers,
        statistics: Statistics | None,
        room: Room | None = None,
    ) -> None:
        self._plan, self._stream, self._pool = plan, stream, pool
        self._room = room or Room(None)
        self._statistics = statistics
        self._model_surveys: dict[int, Survey] = {}

    @property
    def device(self) -> torch.device:
        """Where it mixes."""
        return self._stream.device

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

    def mix(self, step: Step, space: Space) -> Iterator[Tensor]:
        """Yield the output of a step in order, in flat blocks of the output dtype.

        space: told a number of entries, returns the bytes (uint8) that the next block of so many
        is put into. Each is rounded once and finite (else LaconicError).
        """
        chain = _chain(step)
        with self._room.take(whole_bytes(step)):
            surveys = self._survey_step(step, chain)
            checked = not transparent(chain)
            for block in self._blocks(step, chain, last=True, checked=checked):
                merged = self._run_block(step, chain, block, surveys)
                out = space(merged.numel()).view(TORCH_DTYPES[step.output.dtype])
                yield self._rounded(step, block, merged, out)

    def _rounded(self, step: Step, block: Block, merged: Tensor, out: Tensor) -> Tensor:
        """Round once to the output dtype, into `out`, flat; refuse what is not finite."""
        dtype, card = out.dtype, self._stream.card
        if card and out.device != card.device:
            card.fetch(merged.to(dtype).reshape(-1), out)
        else:
            out.copy_(merged.reshape(-1))
        if not _fits(merged, dtype) and not torch.isfinite(out).all():
            self._stream.check(step, block)
            raise LaconicError(
                f"tensor '{step.output.name}': the merge is not finite in {step.output.dtype}; "
                "a wider output dtype or smaller coefficients may help"
            )
        return out

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
        with self._room.take(whole_bytes(step)):
            self._see(step, index, survey, self._survey_step(step, _chain(step)[:index]))

    def _see(self, step: Step, index: int, survey: Survey, before: dict[int, Survey]) -> None:
        """Show a survey every block, cut as the merge cuts it, as the links before leave it."""
        chain = _chain(step)
        for block in self._blocks(step, chain, wanted=getattr(survey, "wants", None)):
            experts = block.experts
            if index:
                sparse = self._run_block(step, chain[:index], block, before)
                experts = sparse.reshape(len(experts), -1)
            survey.see(or_zero(block.base, experts), experts, block.place)

    def _run_block(
        self, step: Step, chain: Sequence[Link], block: Block, surveys: dict[int, Survey]
    ) -> Tensor:
        if not chain:
            return block.experts[0]
        base, experts = block.base, block.experts
        unit = unit_of(step.stages, step.output)
        if unit > 1:
            whole = experts.shape[1] == step.output.numel
            shape = step.output.shape if whole else (-1, unit)
            base = base.view(shape) if base is not None else None
            experts = experts.view(len(experts), *shape)
        context = self._context(step, block, lambda i: surveys[i].result(block.place))
        return run_chain(chain, base, experts, context)

    def _blocks(self, step: Step, chain: Sequence[Link], **settings: Any) -> Iterator[Block]:
        unit = unit_of(step.stages, step.output)
        again = any(link.method.survey for link in chain)
        for block in self._stream.blocks(step, unit=unit, again=again, **settings):
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


def _survey(link: Link) -> Survey:
    if link.method.survey is None:
        raise TypeError(f"{link.method.name} declares a scope but no survey")
    survey: Survey = link.method.survey(**link.knobs)
    return survey


def transparent(chain: Sequence[Link]) -> bool:
    """Whether an entry that is not finite surely shows in the output: nothing can drop it."""
    inputs = {name for link in chain for name in link.method.inputs}
    plain = all(link.method.pointwise for link in chain)
    return plain and len(chain) < 2 and inputs <= {"base", "experts"}


def _fits(merged: Tensor, dtype: torch.dtype) -> bool:
    """Whether all entries surely stay finite in a dtype: none is beyond its largest number."""
    low, high = torch.aminmax(merged)
    largest = torch.finfo(dtype).max
    return -largest <= low.item() and high.item() <= largest
