from __future__ import annotations

import pytest
import torch

from tests.models.melotts.test_alignment import LENGTHS, every_path, scores
from tts_kernel.models.melotts.alignment import path_of
from tts_kernel.models.melotts.soft_alignment import soft_alignment


@pytest.mark.parametrize(("tokens", "frames"), LENGTHS)
def test_it_is_the_mean_of_all_paths_by_their_likelihood(tokens: int, frames: int) -> None:
    given = scores(tokens, frames)
    paths = torch.cat([path_of(torch.tensor([path]), frames) for path in every_path(tokens, frames)])
    weights = (paths * given).sum(dim=(1, 2)).softmax(dim=0)
    found = soft_alignment(given, torch.tensor([tokens]), torch.tensor([frames]))
    torch.testing.assert_close(found[0], (paths * weights[:, None, None]).sum(dim=0))


def test_rows_of_a_batch_are_by_themselves_and_padding_is_zero() -> None:
    tokens, frames = (torch.tensor(values) for values in zip(*LENGTHS, strict=True))
    batch = torch.full((len(LENGTHS), 9, 5), 1e6)
    for row, (width, length) in enumerate(LENGTHS):
        batch[row, :length, :width] = scores(width, length, seed=row)
    found = soft_alignment(batch, tokens, frames)
    for row, (width, length) in enumerate(LENGTHS):
        alone = soft_alignment(scores(width, length, seed=row), tokens[row : row + 1], frames[row : row + 1])[0]
        torch.testing.assert_close(found[row, :length, :width], alone)
        assert float(found[row].sum()) == pytest.approx(length)


def test_scores_that_differ_a_lot_leave_no_doubt() -> None:
    likely = soft_alignment(1000.0 * scores(), torch.tensor([5]), torch.tensor([9]))
    assert ((likely < 1e-6) | (likely > 1.0 - 1e-6)).all()
