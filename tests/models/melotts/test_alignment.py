from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from tts_kernel.models.melotts.alignment import (
    alignment_scores,
    monotonic_durations,
    noise_scale,
    noisy_scores,
    path_of,
    search,
    stretch,
    token_of_frame,
)

LENGTHS = [(1, 1), (1, 6), (4, 4), (3, 9), (5, 8)]  # tokens, frames


def scores(tokens: int = 5, frames: int = 9, seed: int = 1) -> Tensor:
    return torch.randn(1, frames, tokens, generator=torch.Generator().manual_seed(seed))


def every_path(tokens: int, frames: int) -> list[list[int]]:
    """Durations of all paths: where the first token's frames end, the second's, ..."""
    cuts = combinations(range(1, frames), tokens - 1)
    return [list(np.diff([0, *cut, frames])) for cut in cuts]


@pytest.mark.parametrize(("tokens", "frames"), LENGTHS)
def test_the_path_is_the_best_of_all(tokens: int, frames: int) -> None:
    given = scores(tokens, frames)
    found = monotonic_durations(given, torch.tensor([tokens]), torch.tensor([frames]))
    totals = {
        tuple(path): float((path_of(torch.tensor([path]), frames) * given).sum()) for path in every_path(tokens, frames)
    }
    assert totals[tuple(found[0].tolist())] == pytest.approx(max(totals.values()))


def test_rows_of_a_batch_are_searched_by_themselves_whatever_stands_on_padding() -> None:
    tokens, frames = (torch.tensor(values) for values in zip(*LENGTHS, strict=True))
    batch = torch.full((len(LENGTHS), 9, 5), 1e6)
    alone = []
    for row, (width, length) in enumerate(LENGTHS):
        given = scores(width, length, seed=row)
        batch[row, :length, :width] = given
        alone.append(monotonic_durations(given, tokens[row : row + 1], frames[row : row + 1])[0])
    found = monotonic_durations(batch, tokens, frames)
    for row, expected in enumerate(alone):
        assert found[row, : len(expected)].tolist() == expected.tolist()
        assert not found[row, len(expected) :].any()
    assert found.sum(dim=1).tolist() == frames.tolist()


def test_on_a_tie_the_path_stays_seen_from_the_end() -> None:
    found = monotonic_durations(torch.zeros(1, 7, 3), torch.tensor([3]), torch.tensor([7]))
    assert found.tolist() == [[1, 1, 5]]


def test_machine_code_says_what_python_says() -> None:
    tokens, frames = np.array([5, 3]), np.array([9, 7])
    values = torch.cat([scores(seed=1), scores(seed=2)])
    durations = np.zeros((2, 5), dtype=np.int64)
    assert not search(values.numpy(), tokens, frames, durations).any()
    found = monotonic_durations(values, torch.from_numpy(tokens), torch.from_numpy(frames))
    assert found.tolist() == durations.tolist()


def test_every_row_without_a_path_is_named() -> None:
    given = torch.zeros(4, 6, 5)
    given[3, 2] = float("nan")
    with pytest.raises(ValueError, match="row 0 has 5 tokens in 4 frames") as raised:
        monotonic_durations(given, torch.tensor([5, 3, 0, 2]), torch.tensor([4, 6, 6, 6]))
    assert "row 2 has 0 tokens in 6 frames" in str(raised.value)
    assert "row 3 has scores that are not numbers" in str(raised.value)
    assert "row 1" not in str(raised.value)


def test_scores_are_log_likelihoods() -> None:
    random = torch.Generator().manual_seed(4)
    frames, mean, spread = (torch.randn(2, 3, n, generator=random) for n in (7, 4, 4))
    normal = Normal(mean[:, :, None], spread.exp()[:, :, None])  # (2, 3, 1, 4)
    expected = normal.log_prob(frames[..., None]).sum(dim=1)
    torch.testing.assert_close(alignment_scores(frames, mean, spread), expected, rtol=1e-4, atol=1e-4)


def test_noise_follows_the_deviation_of_real_scores() -> None:
    given, real = torch.cat([scores(), torch.full((1, 9, 5), 1e4)]), torch.tensor([True, False]).view(2, 1, 1)
    real = real.expand(-1, 9, 5)
    noise = torch.ones_like(given)
    added = noisy_scores(given, noise, 0.1, real) - given
    torch.testing.assert_close(added[0, 0, 0], 0.1 * scores().std(), rtol=1e-3, atol=1e-4)
    assert (noisy_scores(given, noise, 0.1) - given)[0, 0, 0] > 100 * added[0, 0, 0]


def test_noise_falls_to_zero_and_stays_there() -> None:
    assert [noise_scale(step) for step in (0, 1, 1000)] == pytest.approx([0.01, 0.009998, 0.008])
    assert [noise_scale(step) for step in (5000, 6000)] == [0.0, 0.0]


def test_tokens_are_stretched_over_their_frames() -> None:
    durations = torch.tensor([[2, 0, 1], [1, 3, 0]])
    values = torch.tensor([[[5.0, 6.0, 7.0]], [[1.0, 2.0, 3.0]]])
    assert stretch(values, durations, 5).tolist() == [[[5, 5, 7, 0, 0]], [[1, 2, 2, 2, 0]]]
    token, mask = token_of_frame(durations, 5)
    assert mask[:, 0].sum(dim=1).tolist() == [3, 4]
    path = path_of(durations, 5)
    assert torch.equal(path.sum(dim=1), durations.float())
    assert torch.equal(path.argmax(dim=2)[mask[:, 0]], token[mask[:, 0]])
