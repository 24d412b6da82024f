"""Examiners on a Ray cluster: actors with a live model each, one per GPU."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from laconic.errors import LaconicError
from laconic.run.runner import Key
from laconic.searching.examiner import Examiner, LiveExaminer, Setting
from laconic.searching.outcomes import Outcome
from laconic.searching.track import WorkerLostError


def open_cluster(workers: str, setting: Setting) -> tuple[int, Callable[[int], Examiner]]:
    """Connect to the cluster of RAY_ADDRESS, or start one here; returns how many and their opener.

    workers: `ray` for one actor per GPU (one in all without GPUs), or `ray:NUMBER`. The parents and
    the search's folder must be at the same paths on every node. Raises LaconicError when ray is not
    installed, the cluster cannot be reached, or the number is none.
    """
    try:
        import ray
    except ImportError:
        raise LaconicError("workers ray: not installed; pip install laconic[ray]") from None
    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, include_dashboard=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise LaconicError(f"workers ray: the cluster cannot be reached: {error}") from None
    resources: Any = ray.cluster_resources  # without annotations
    gpus = int(resources().get("GPU", 0))
    number = workers.partition(":")[2] or str(max(gpus, 1))
    if not number.isdigit() or int(number) < 1:
        raise LaconicError(f"workers: '{workers}'; expected ray, or ray:NUMBER such as ray:2")
    share = 1.0 if gpus else 0.0
    return int(number), lambda _: ActorExaminer(setting, share)


class ActorExaminer:
    """An examiner in an actor of the cluster. gpus: how many it reserves."""

    def __init__(self, setting: Setting, gpus: float) -> None:
        import ray

        self._ray = ray
        actor: Any = ray.remote(num_gpus=gpus, max_restarts=0)(LiveExaminer)
        self.actor = actor.remote(setting)

    def ask(
        self, recipe: Mapping[str, Any], ids: Sequence[str], limit: int, done: Collection[Key] = ()
    ) -> list[Outcome]:
        """Ask there. Raises WorkerLostError when the actor or its node is gone."""
        errors = self._ray.exceptions
        try:
            waiting = self.actor.ask.remote(dict(recipe), list(ids), limit, set(done))
            found: list[Outcome] = self._ray.get(waiting)
        except errors.RayActorError as error:
            raise WorkerLostError(f"worker lost: {_first_line(error)}") from None
        except errors.RayTaskError as error:
            raise LaconicError(str(error.cause or _first_line(error))) from None
        return found

    def close(self) -> None:
        """End the actor and give back its GPU."""
        self._ray.kill(self.actor)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
