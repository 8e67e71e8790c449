from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.models.melotts.tiny_models import CONFIG, clips, speaker, synthesizer
from tests.parity import fill
from tts_kernel.models.melotts.text_encoder import TextEncoder


def test_padding_changes_no_real_token_and_says_nothing() -> None:
    encoder, given = synthesizer().enc_p, clips()
    both = encoder(given.text, speaker())
    for row, tokens in enumerate(given.text.lengths.tolist()):
        alone = encoder(given.alone(row).text, speaker()[row : row + 1])
        for name in ("hidden", "mean", "log_deviation"):
            value = getattr(both, name)[row : row + 1]
            torch.testing.assert_close(value[:, :, :tokens], getattr(alone, name))
            assert not value[:, :, tokens:].any()


@pytest.mark.parametrize("name", ["phones", "tones", "languages", "features"])
def test_every_input_is_heard(name: str) -> None:
    encoder, text = synthesizer().enc_p, clips().text
    value = getattr(text, name).clone()
    value[..., 0] = value[..., 1]
    assert not torch.equal(value, getattr(text, name))
    changed = encoder(replace(text, **{name: value}), speaker())
    assert not torch.allclose(changed.mean, encoder(text, speaker()).mean)


def test_silent_second_features_are_a_constant() -> None:
    """A public model that gets zeros as its second features says what ours says without them."""
    ours = synthesizer().enc_p
    public = TextEncoder(replace(CONFIG, ja_bert_channels=6)).eval()
    fill.fill(public, {name: f"enc_p.{name}" for name in public.state_dict()})
    assert public.ja_bert_proj is not None
    with torch.no_grad():
        public.ja_bert_proj.bias.zero_()
    text = clips().text
    silent = replace(text, ja_features=torch.zeros(3, 6, 7))
    torch.testing.assert_close(public(silent, speaker()).hidden, ours(text, speaker()).hidden)
    heard = replace(text, ja_features=torch.ones(3, 6, 7))
    assert not torch.allclose(public(heard, speaker()).hidden, ours(text, speaker()).hidden)


@pytest.mark.parametrize("second", [0, 6])
def test_second_features_that_do_not_go_with_the_model_are_refused(second: int) -> None:
    encoder, text = TextEncoder(replace(CONFIG, ja_bert_channels=second)), clips().text
    other = text if second else replace(text, ja_features=torch.zeros(3, 6, 7))
    with pytest.raises(ValueError, match="ja_features: the model wants"):
        encoder(other, speaker())


def test_text_moves_with_all_its_parts() -> None:
    text = replace(clips().text, ja_features=torch.zeros(3, 6, 7)).to("meta")
    parts = (text.phones, text.lengths, text.tones, text.languages, text.features, text.ja_features)
    assert all(part is not None and part.is_meta for part in parts)
