"""Protocols: how a question is put and how its answer is drawn, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from laconic.errors import LaconicError, unknown
from laconic.run.sample import Message, Sample
from laconic.run.sampling import Sampling, first_stop

INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."
DEMONSTRATIONS = (
    (
        "A baker packs 84 rolls into bags of 6 and sells each bag for $4. What does he earn?",
        "84 rolls make 84 / 6 = 14 bags. They bring 14 * 4 = 56 dollars. The answer is $56$.",
    ),
    (
        "If $3x - 7 = 2x + 5$, what is $x^2$?",
        "Subtracting $2x$ and adding $7$ gives $x = 12$, so $x^2 = 144$. The answer is $144$.",
    ),
    (
        "What is the probability that two rolls of a fair die give an even sum?",
        "The second roll matches the parity of the first with probability $3/6$. The answer is "
        r"$\frac{1}{2}$.",
    ),
    (
        r"A right triangle has legs $5$ and $10$. How long is its hypotenuse?",
        r"It is $\sqrt{5^2 + 10^2} = \sqrt{125} = 5\sqrt{5}$. The answer is $5\sqrt{5}$.",
    ),
)
"""Written for laconic: the papers' own demonstrations are not free to copy."""

Prompt = Callable[[str], str]


@dataclass(frozen=True)
class Protocol:
    """A named way of asking.

    text: turns a question into the raw prompt; None: the model's chat template gets it, with
    `instruction` after it. stop: texts that end an answer; where an engine goes on after one, it is
    cut there before it is graded. code: it asks for programs; a protocol asks either for these or
    for answers in a box. window: tokens of context, beyond the prompt, without which it would be
    another protocol; None: what the model has.
    """

    name: str
    source: str
    sampling: Sampling
    text: Prompt | None = None
    instruction: str = INSTRUCTION
    stop: tuple[str, ...] = ()
    code: bool = False
    window: int | None = None

    def sample(self, id: str, question: str, level: str | None) -> Sample:
        """The prompt of one question."""
        if self.text is not None:
            return Sample(id, (), self.text(question), level)
        content = "\n".join(part for part in (question, self.instruction) if part)
        return Sample(id, (Message("user", content),), None, level)


def few_shot(question: str) -> str:
    """The demonstrations, then the question, as plain text that ends in `Answer:`."""
    asked = [f"Question: {q}\nAnswer: {a}" for q, a in DEMONSTRATIONS]
    return "\n\n\n".join([*asked, f"Question: {question}\nAnswer:"])


def chat_markup(question: str) -> str:
    """ChatML written out, whatever the tokenizer's own template is."""
    return (
        f"<|im_start|>system\n{INSTRUCTION}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def without_thought(question: str) -> str:
    """Qwen3's own prompt with its thought written empty: thinking switched off."""
    return (
        f"<|im_start|>user\n{question}\n{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
        "<think>\n\n</think>\n\n"
    )


MARKUP_STOP = ("<|im_end|>", "<|endoftext|>")
QWEN3 = Sampling(max_tokens=32768, temperature=0.6, top_p=0.95, top_k=20, n=16)
PROTOCOLS = {
    one.name: one
    for one in (
        Protocol(
            "l2s-system1",
            "arXiv:2503.20641, quick models: 4 demonstrations, greedy",
            Sampling(max_tokens=8192),
            few_shot,
            stop=("\n\nQuestion:", "</s>", *MARKUP_STOP),
        ),
        Protocol(
            "l2s-system2",
            "arXiv:2503.20641, slow models and merges: ChatML, greedy; needs a context window of "
            "10240 and the prompt or more",
            Sampling(max_tokens=10240),
            chat_markup,
            stop=("</s>", *MARKUP_STOP),
            window=10240,
        ),
        Protocol(
            "r1-official",
            "DeepSeek-R1 model card: no system prompt, the instruction in the user's turn",
            Sampling(max_tokens=32768, temperature=0.6, top_p=0.95, n=4),
        ),
        Protocol("qwen3-aime", "Qwen3 model card, thinking switched on", QWEN3),
        Protocol(
            "qwen3-aime-off",
            "Qwen3 model card, thinking switched off",
            QWEN3,
            without_thought,
            stop=MARKUP_STOP,
        ),
        Protocol(
            "code",
            "programs (HumanEval, LiveCodeBench) by the chat template, greedy; questions are put "
            "in laconic's own words",
            Sampling(max_tokens=32768),
            instruction="",
            code=True,
        ),
        Protocol(
            "code-10",
            "the same, 10 draws as LiveCodeBench takes them",
            Sampling(max_tokens=32768, temperature=0.2, top_p=0.95, n=10),
            instruction="",
            code=True,
        ),
    )
}


def get_protocol(name: str) -> Protocol:
    """The protocol of that name. Raises LaconicError for an unknown one."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def refuse_mismatch(name: str | None, answers: Mapping[str, bool]) -> None:
    """Raise LaconicError for a protocol that asks for another kind of answer than a task.

    answers: each task's name, and whether its answers are programs.
    """
    way = None if name is None else get_protocol(name)
    for task, code in answers.items():
        if way is not None and way.code != code:
            kinds = ("an answer in a box", "a program")
            fitting = ", ".join(one.name for one in PROTOCOLS.values() if one.code == code)
            raise LaconicError(
                f"protocol '{name}' asks for {kinds[way.code]}, and task '{task}' for "
                f"{kinds[code]}; give a protocol that fits ({fitting}), or none"
            )


def cut_at(text: str, stops: tuple[str, ...]) -> str:
    """A response up to the first of the stop texts."""
    found = first_stop(text, stops)
    return text if found is None else text[: found[0]]
