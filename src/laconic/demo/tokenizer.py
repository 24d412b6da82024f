"""The pair's tokenizer: whole words for the fixed phrases, single characters for the rest.

A Qwen2 tokenizer, because `AutoTokenizer` takes that class for every folder whose config says
`qwen2`: byte-level characters without merges, and the phrases as added tokens. Every printable
ASCII text comes back exactly from decoding; other characters have no token and are left out.
"""

from __future__ import annotations

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from laconic.tags import THINK, THINK_END

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

PHRASES = (
    "system",
    "user",
    "assistant",
    " Wait",
    "Wait",
    ", let me double-check",
    " Let me just verify",
    ": ",
    ", ",
    "; ",
    "\\boxed{",
)
CHARACTERS = ("\n", *(chr(code) for code in range(32, 127)))

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def build(longest: int = 512) -> PreTrainedTokenizerFast:
    """The tokenizer; `longest` is its model_max_length in tokens."""
    tokenizer = Qwen2Tokenizer(
        vocab=_vocabulary(),
        merges=[],
        unk_token=END_OF_TEXT,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[TURN_START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=longest,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    # Not special: a response decoded with skip_special_tokens=True must keep its thinking.
    words = (THINK, THINK_END, *PHRASES)
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in words])
    return tokenizer


def _vocabulary() -> dict[str, int]:
    """Ids of the tokens; the single characters in the spelling of a byte-level vocabulary."""
    characters = [{" ": "\u0120", "\n": "\u010a"}.get(c, c) for c in CHARACTERS]
    special = (END_OF_TEXT, TURN_START, TURN_END)
    words = (*special, THINK, THINK_END, *PHRASES, *characters)
    return {word: number for number, word in enumerate(words)}
