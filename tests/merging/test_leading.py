"""The random Krylov route: its error bounds, what proves them, and when it is taken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from laconic.merging import spectrum
from laconic.merging.leading import LEAST_SIDE, Leading, affordable, leading
from laconic.merging.spectrum import SOFTENING, TRUNCATION, soft_threshold, truncate
from stand_in_card import CARD, waits

SIDE, LONG, RANK = 512, 700, 16
EDGE = LONG**0.5 + SIDE**0.5  # largest singular value of noise


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_values(sigma: Tensor, rows: int = LONG) -> Tensor:
    left, right = (torch.linalg.qr(noise(side, len(sigma), seed=1)).Q for side in (rows, SIDE))
    return (left * sigma) @ right.T


def spiked() -> Tensor:
    """Flat noise, and twelve directions that stand out of it."""
    return noise(LONG, SIDE) + with_values(EDGE * torch.logspace(1.2, 0.4, 12))


SPECTRA: dict[str, Callable[[], Tensor]] = {
    "flat": lambda: noise(LONG, SIDE),
    "square": lambda: noise(SIDE, SIDE),
    "wide": lambda: noise(SIDE, LONG),
    "slow": lambda: with_values(1 / torch.arange(1, SIDE + 1).sqrt()),
    "fast": lambda: with_values(0.8 ** torch.arange(SIDE).clamp(max=28)),
    "spiked": spiked,
}
by_spectrum = pytest.mark.parametrize("name", SPECTRA)


@pytest.fixture
def proven(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each matrix that the random route was tried on, whether it was proven to do."""
    found: list[bool] = []
    proves = Leading.proves

    def told(self: Leading, *arguments: Tensor) -> Tensor:
        answer = proves(self, *arguments)
        found.extend(answer.tolist())
        return answer

    monkeypatch.setattr(Leading, "proves", told)
    return found


def whole(monkeypatch: pytest.MonkeyPatch, step: Callable[[], Tensor]) -> Tensor:
    with monkeypatch.context() as patched:
        patched.setattr(spectrum, "affordable", lambda *_: False)
        return step()


@by_spectrum
def test_truncation_is_nearly_the_best_of_its_rank(name: str, proven: list[bool]) -> None:
    matrix = SPECTRA[name]()
    sigma = torch.linalg.svdvals(matrix.double())
    rest = matrix - truncate(matrix, RANK)
    assert proven == [True]
    assert torch.linalg.matrix_norm(rest, 2) <= (1 + TRUNCATION) * sigma[RANK] + 1e-6 * sigma[0]
    assert torch.linalg.norm(rest) <= 1.001 * torch.linalg.norm(sigma[RANK:])
    assert torch.linalg.matrix_rank(truncate(matrix, RANK), rtol=1e-5) == RANK


@pytest.mark.parametrize("mode", ["absolute", "fraction"])
@pytest.mark.parametrize("rows", [LONG, SIDE])
def test_few_values_above_a_threshold(mode: str, rows: int, proven: list[bool]) -> None:
    matrix = spiked()[:rows]
    left, sigma, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    for share in (0.7, 0.3):
        mu = share if mode == "fraction" else share * float(sigma[0])
        found = soft_threshold(matrix.T, mu, mode).T
        expected = (left * (sigma - share * sigma[0]).clamp(min=0)) @ right
        error = torch.linalg.matrix_norm(found - expected, 2)
        assert error <= 2 * SOFTENING * sigma[0]
    assert proven == [True, True]


def test_the_proof_tells_what_is_left_from_what_may_be() -> None:
    gram = (noise(SIDE, SIDE) / SIDE**0.5).T @ (noise(SIDE, SIDE) / SIDE**0.5)
    values, vectors = torch.linalg.eigh(gram)
    pairs = Leading(values[None, -20:], vectors[None, :, -20:], gram[None] @ vectors[None, :, -20:])
    kept = torch.arange(20)[None] >= 8
    rest = values[None, -13]
    assert pairs.proves(gram[None], kept, rest * 1.001).tolist() == [True]
    assert pairs.proves(gram[None], kept, rest * 0.999).tolist() == [False]
    # room for rounding: a bound that is met by less than float32 can tell
    assert pairs.proves(gram[None], kept, rest + 3e-7 * values[-1]).tolist() == [False]
    missing = kept.clone()
    missing[0, -1] = False
    assert pairs.proves(gram[None], missing, rest * 1.001).tolist() == [False]
    twice = Leading(*(torch.cat([x, x]) for x in (pairs.values, pairs.vectors, pairs.images)))
    both = torch.cat([kept, torch.arange(20)[None] >= 14])
    assert twice.proves(torch.stack([gram, gram]), both, rest.repeat(2) * 1.001).tolist() == [
        True,
        False,
    ]


def test_coupling_is_the_part_that_kept_directions_share_with_the_rest() -> None:
    matrix = noise(60, 40)
    gram = (matrix.T @ matrix)[None]
    found = leading(gram, 5, depth=2)
    kept = torch.arange(10)[None] >= 6
    inside = found.vectors[0, :, 6:]
    left = matrix @ inside / found.values[0, 6:].sqrt()
    expected = torch.linalg.norm(left.T @ (matrix - matrix @ inside @ inside.T))
    torch.testing.assert_close(found.coupling(kept)[0], expected, rtol=1e-4, atol=0)
    assert expected > 0.1
    values, vectors = torch.linalg.eigh(gram)
    assert Leading(values, vectors, gram @ vectors).coupling(values > 0) < 1e-3


@pytest.mark.parametrize("which", ["proves", "coupling"])
@pytest.mark.parametrize("step", ["soft", "first"])
def test_what_is_not_proven_is_decomposed_whole(
    step: str, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = spiked()

    def run() -> Tensor:
        return soft_threshold(matrix, 2 * EDGE) if step == "soft" else truncate(matrix, RANK)

    expected, random = whole(monkeypatch, run), run()
    assert not torch.equal(random, expected)
    if which == "proves":
        refuse = Leading.proves
        monkeypatch.setattr(Leading, which, lambda *given: refuse(*given) & False)
    else:
        monkeypatch.setattr(Leading, which, lambda self, _: self.values[:, -1])
    uses = which == "proves" or step == "soft"
    assert torch.equal(run(), expected if uses else random)


def test_truncation_is_measured_by_the_first_value_that_it_drops(
    proven: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = with_values(torch.cat([torch.ones(SIDE - RANK), torch.full((RANK,), 2.0)]))
    expected = whole(monkeypatch, lambda: truncate(matrix, RANK))

    def turned(gram: Tensor, block: int, depth: int) -> Leading:
        """Eigenvectors, but for one between a value that is kept and one that is dropped."""
        vectors = torch.linalg.eigh(gram).eigenvectors
        vectors[..., -RANK] = 0.9**0.5 * vectors[..., -RANK] + 0.1**0.5 * vectors[..., 0]
        vectors = vectors[..., -block:]
        images = gram @ vectors
        return Leading((vectors * images).sum(-2), vectors, images)

    monkeypatch.setattr(spectrum, "leading", turned)
    # 1.3 ** 0.5 is left: more than 1.01 times the 1 that is dropped, less than the 2 that is kept
    assert torch.equal(truncate(matrix, RANK), expected)
    assert proven == [False]


def test_a_threshold_inside_a_flat_spectrum_is_not_trusted(
    proven: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = noise(SIDE, SIDE)
    found = soft_threshold(matrix, 0.95, "fraction")
    assert proven == [False]
    expected = whole(monkeypatch, lambda: soft_threshold(matrix, 0.95, "fraction"))
    assert torch.equal(found, expected)


def test_the_route_goes_by_shape_and_rank(proven: list[bool]) -> None:
    assert affordable(LEAST_SIDE, LEAST_SIDE // 20)
    assert not affordable(LEAST_SIDE, LEAST_SIDE // 20 + 1)
    assert not affordable(LEAST_SIDE - 1, 1)
    truncate(noise(LONG, SIDE), SIDE // 10)
    truncate(noise(LONG, 400), 2)
    soft_threshold(spiked() * 1e-4, 0.3, "energy")
    soft_threshold(noise(LONG, SIDE), 1.0)  # nearly all stay
    soft_threshold(spiked()[:, :400], 2 * EDGE)
    assert proven == []
    truncate(noise(LONG, SIDE), 2)
    soft_threshold(spiked(), 2 * EDGE)
    assert proven == [True, True]


def test_the_random_start_is_its_own() -> None:
    matrix = noise(LONG, SIDE)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = truncate(matrix, RANK)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    truncate(noise(LONG, SIDE, seed=3), RANK)
    assert torch.equal(truncate(matrix, RANK), first)


def test_a_stack_on_a_card_is_decomposed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    eigh, mm = torch.linalg.eigh, torch.mm

    def counted(gram: Tensor) -> tuple[Tensor, Tensor]:
        shapes.append(tuple(gram.shape))
        values, vectors = eigh(gram)
        return values, vectors

    stack = noise(2, 3, 40, 30)

    def on_host(first: Tensor, *more: Tensor, out: Tensor) -> Tensor:
        assert first.device.type == "cpu"
        return mm(first, *more, out=out)

    monkeypatch.setattr(torch.linalg, "eigh", counted)
    monkeypatch.setattr(torch, "mm", on_host)
    for step in (lambda x: soft_threshold(x, 4.0), lambda x: truncate(x, 5)):
        shapes.clear()
        with waits() as found:
            on_card = step(stack.to(CARD))
        assert shapes == [(6, 30, 30)]
        assert len(found) <= 5, found
        shapes.clear()
        torch.testing.assert_close(on_card.cpu(), step(stack), rtol=0, atol=1e-4)
        assert shapes == [(1, 30, 30)] * 6


@pytest.mark.parametrize("device", ["cpu", "card"])
def test_only_doubtful_matrices_of_a_stack_go_the_long_way(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    full = spectrum._by_svd
    monkeypatch.setattr(spectrum, "_by_svd", lambda x, g: seen.append(len(x)) or full(x, g))
    steep = noise(3, 30, 8)
    left, _, right = torch.linalg.svd(steep[1].double(), full_matrices=False)
    steep[1] = ((left * torch.logspace(0, -6, 8, dtype=torch.float64)) @ right).float()
    stack, mus = steep, torch.tensor([1.0, 1e-4, 2.0])
    if device == "card":
        stack, mus = stack.to(CARD), mus.to(CARD)
    found, soft = truncate(stack, 6).cpu(), soft_threshold(stack, mus).cpu()
    assert seen == [1, 1]
    for one, lowered, mu, matrix in zip(found, soft, mus.cpu(), steep.double(), strict=True):
        left, sigma, right = torch.linalg.svd(matrix, full_matrices=False)
        expected = (left[:, :6] * sigma[:6]) @ right[:6]
        torch.testing.assert_close(one.double(), expected, rtol=0, atol=1e-5 * float(sigma[0]))
        expected = (left * (sigma - mu).clamp(min=0)) @ right
        torch.testing.assert_close(lowered.double(), expected, rtol=0, atol=1e-5 * float(sigma[0]))


def test_the_random_route_on_a_card() -> None:
    stack = torch.stack([spiked(), noise(LONG, SIDE)])
    found = truncate(stack.to(CARD), RANK).cpu()
    torch.testing.assert_close(found, truncate(stack, RANK), rtol=0, atol=1e-3)
    soft = soft_threshold(stack.to(CARD), 2 * EDGE).cpu()
    torch.testing.assert_close(soft, soft_threshold(stack, 2 * EDGE), rtol=0, atol=1e-3)
    assert not soft[1].any()
