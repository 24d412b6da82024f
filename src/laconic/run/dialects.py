"""What OpenAI-compatible servers understand beyond the common part of that interface.

Every server has defaults of its own, some read from the model's generation_config.json; so each
parameter that a server knows is sent, whether it differs from the default or not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from laconic.errors import LaconicError, unknown
from laconic.run.sampling import Sampling

Fields = dict[str, Any]


@dataclass(frozen=True)
class Dialect:
    """One kind of server.

    takes_ids: a prompt may be token ids. keeps_special: special tokens can be kept in the text.
    parameters: from sampling, token limit and end ids to the fields of a request.
    """

    name: str
    takes_ids: bool
    keeps_special: bool
    parameters: Callable[[Sampling, int, frozenset[int]], Fields]


def get_dialect(name: str) -> Dialect:
    """The dialect of that name. Raises LaconicError for an unknown one."""
    if name not in DIALECTS:
        raise unknown("dialect", name, DIALECTS)
    return DIALECTS[name]


def _common(sampling: Sampling, limit: int) -> Fields:
    top_p = 1.0 if sampling.greedy else sampling.top_p
    stop = {"stop": list(sampling.stop)} if sampling.stop else {}
    return stop | {
        "max_tokens": limit,
        "temperature": sampling.temperature,
        "top_p": top_p,
        "stream": False,
    }


def _openai(sampling: Sampling, limit: int, ends: frozenset[int]) -> Fields:
    if sampling.top_k and not sampling.greedy:
        raise LaconicError(
            f"sampling: top_k is {sampling.top_k}, which the common OpenAI interface does not "
            "have; leave it out, or name the kind of server with --dialect vllm, sglang or "
            "transformers"
        )
    return _common(sampling, limit)


def _vllm(sampling: Sampling, limit: int, ends: frozenset[int]) -> Fields:
    return _common(sampling, limit) | {
        "top_k": -1 if sampling.greedy or not sampling.top_k else sampling.top_k,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "skip_special_tokens": False,
    }


def _vllm_with_ids(sampling: Sampling, limit: int, ends: frozenset[int]) -> Fields:
    return _vllm(sampling, limit, ends) | {
        "spaces_between_special_tokens": False,
        "return_token_ids": True,
    }


def _transformers(sampling: Sampling, limit: int, ends: frozenset[int]) -> Fields:
    # `transformers serve` draws only when the generation settings say do_sample, which a request
    # cannot say but by replacing those settings as a whole, end tokens included.
    settings: Fields = {"max_new_tokens": limit, "do_sample": not sampling.greedy}
    if not sampling.greedy:
        settings |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
        settings |= {"top_k": sampling.top_k}
    if ends:
        settings |= {"eos_token_id": sorted(ends), "pad_token_id": min(ends)}
        return _common(sampling, limit) | {"generation_config": json.dumps(settings)}
    if not sampling.greedy:
        raise LaconicError(
            "`transformers serve` draws tokens only when told the model's end tokens too; give "
            "the model's tokenizer with --tokenizer"
        )
    return _common(sampling, limit)


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("openai", False, False, _openai),
        Dialect("vllm", True, True, _vllm_with_ids),
        Dialect("sglang", True, True, _vllm),
        Dialect("transformers", False, False, _transformers),
    )
}
"""The kinds of servers by name; `openai` is what all of them understand."""
