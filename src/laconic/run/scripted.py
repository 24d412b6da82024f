"""A runner that answers from a script: for tests, and for trying a pipeline without a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from laconic.errors import LaconicError
from laconic.run.completion import Completion
from laconic.run.runner import Identity, Key, Weights, pending
from laconic.run.sample import Sample
from laconic.run.sampling import Sampling, first_stop

Script = Mapping[str, str] | Callable[[Sample, int], str]


class ScriptedRunner:
    """Answers each sample from `script`: a mapping from sample id to text, or a function.

    A token is a word between white space, and one end token. `generated` lists what was asked.
    """

    def __init__(self, script: Script, name: str = "scripted") -> None:
        self._script = script
        self._name = name
        self.generated: list[Key] = []

    def generate(
        self, samples: Sequence[Sample], sampling: Sampling, done: Collection[Key] = ()
    ) -> Iterator[Completion]:
        """Yield the script's answers, cut at stop strings and at sampling.max_tokens words."""
        for sample, draw in pending(samples, sampling, done):
            completion = self._complete(sample, draw, sampling)
            self.generated.append(completion.key)
            yield completion

    def load(self, weights: Weights) -> None:
        """A script has no weights: raises LaconicError."""
        raise LaconicError("a scripted runner has no weights to replace")

    def identity(self, first: Sample) -> Identity:
        """A model of that name, without weights."""
        return Identity(self._name, self._name, "words", "none", "none", context_window=None)

    def _complete(self, sample: Sample, draw: int, sampling: Sampling) -> Completion:
        text = self._answer(sample, draw)
        place, word = first_stop(text, sampling.stop) or (len(text), None)
        text = text[:place]
        tokens = len(text.split()) + (word is None)  # with the end token
        cut = tokens > sampling.max_tokens
        prompt = sample.text or "\n".join(message.content for message in sample.messages)
        return Completion(
            id=sample.id,
            draw=draw,
            text=" ".join(text.split()[: sampling.max_tokens]) if cut else text,
            tokens=min(tokens, sampling.max_tokens),
            stop="length" if cut else "stop",
            prompt_tokens=len(prompt.split()),
            prompt_sha256=hashlib.sha256(prompt.encode()).hexdigest(),
            stop_string=None if cut else word,
        )

    def _answer(self, sample: Sample, draw: int) -> str:
        if not isinstance(self._script, Mapping):
            return self._script(sample, draw)
        if sample.id not in self._script:
            raise LaconicError(f"the script has no answer for sample '{sample.id}'")
        return self._script[sample.id]
