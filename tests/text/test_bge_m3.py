from __future__ import annotations

import io
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentencepiece import SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from tts_kernel.data.demo.sentences import SENTENCES
from tts_kernel.data.features import Features, ShardWriter
from tts_kernel.text.bge_m3 import BGEM3, KIND, EncoderError, cache_features
from tts_kernel.text.bge_m3_demo import make_demo_encoder
from tts_kernel.text.phones import to_ids, to_phones, word2ph

TEXTS = [text for texts in SENTENCES.values() for text in texts]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo_encoder(tmp_path_factory.mktemp("encoder") / "bge-m3", TEXTS, width=16, heads=2, max_tokens=64)


@pytest.fixture(scope="module")
def public_tokenizer() -> Tokenizer:
    """As the public one in every part but its size: SentencePiece's own table of ways of writing (nmt_nfkc), runs of
    letters that it does not know as one token, spaces as tokens."""
    trained = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=trained, vocab_size=500, hard_vocab_limit=False,
        character_coverage=0.98, bos_id=0, pad_id=1, eos_id=2, unk_id=3, num_threads=1, minloglevel=2,
    )  # fmt: skip
    proto = ModelProto.FromString(trained.getvalue())
    tokenizer = Tokenizer(models.Unigram([(piece.piece, piece.score) for piece in proto.pieces], unk_id=3))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copied"))


def test_features_are_the_hidden_state_of_transformers(folder: Path) -> None:
    from transformers import XLMRobertaModel

    whole = XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32).eval()
    for layer in (-3, -1, 0, 2):
        encoder = BGEM3(folder, layer=layer)
        with torch.inference_mode():
            ids = torch.tensor([encoder.tokens(TEXTS[0]).ids])
            expected = whole(ids, output_hidden_states=True).hidden_states[layer][0]
        np.testing.assert_allclose(encoder.of_text(TEXTS[0]), expected.numpy(), atol=1e-6)


def test_a_batch_gives_what_each_text_alone_gives(folder: Path) -> None:
    encoder = BGEM3(folder)
    batched = dict(encoder.encode(TEXTS, batch_tokens=100))
    assert sorted(batched) == list(range(len(TEXTS)))
    for number, text in enumerate(TEXTS):
        assert batched[number].shape == (len(encoder.tokens(text).ids), encoder.width)
        np.testing.assert_allclose(batched[number], encoder.of_text(text), atol=1e-5)


def test_every_phone_gets_the_features_of_its_token(folder: Path) -> None:
    encoder = BGEM3(folder)
    for text in TEXTS:
        said = to_phones(text)
        features = encoder.of_phones(said)
        assert features.shape == (encoder.width, len(to_ids(said).phones))
        hidden = encoder.of_text(said.text)
        counts = word2ph(said, encoder.tokens(said.text).places)
        assert counts.sum() == features.shape[1]
        np.testing.assert_array_equal(features[:, 0], hidden[0])
        np.testing.assert_array_equal(features[:, -1], hidden[-1])
        np.testing.assert_array_equal(encoder.of_phones(said, hidden), features)


@pytest.mark.parametrize(
    "text",
    [
        "안녕 😀 하세요… 정말요?",
        "👨‍👩‍👧 가족, 5㎏ ㅋㅋㅋ",
        "１月１日は元日です。ﾊﾟﾝ、か゛き",
        "葛\U000e0100飾区へ〜",
        "The ﬁrst oﬃce – “ok” ½ Ünïcödé",
        "안녕 hello 你好 こんにちは 123",
        "价格¥12,345.5……好！",
        "한국어 cafe\u0301 x\u030c",
    ],
)
def test_phones_find_their_token_whatever_the_tokenizer_makes_of_the_text(
    public_tokenizer: Tokenizer, text: str
) -> None:
    said = to_phones(text, unknown="leave out")
    tokens = public_tokenizer.encode(said.text).offsets
    counts = word2ph(said, tokens, blanks=False)
    owners = np.repeat(np.arange(len(tokens)), counts)[1:-1]
    assert len(owners) == len(said) - 2
    for place, owner in zip(said.places[1:-1], owners, strict=True):
        start, end = tokens[owner]
        own_letter = said.text[int(place)]
        assert start <= place <= end, (own_letter, place, tokens[owner])


def test_places_of_the_tokens_are_those_in_the_text(folder: Path) -> None:
    encoder = BGEM3(folder)
    for text in TEXTS:
        inner = encoder.tokens(text).places[1:-1]
        assert "".join(text[start:end] for start, end in dict.fromkeys(inner)).replace(" ", "")
        assert inner[-1][1] == len(text)


def test_precision_changes_the_features_key_but_not_the_identity(folder: Path) -> None:
    whole, half = BGEM3(folder), BGEM3(folder, half=True)
    assert whole.identity == half.identity
    assert whole.key("a") != half.key("a")
    assert BGEM3(folder, layer=0).identity != whole.identity


def test_half_precision_stays_close(folder: Path) -> None:
    features = BGEM3(folder, half=True).of_text(TEXTS[0])
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, BGEM3(folder).of_text(TEXTS[0]), atol=0.02)


def test_features_of_another_text_are_refused(folder: Path) -> None:
    encoder = BGEM3(folder)
    with pytest.raises(EncoderError, match="another text or encoder"):
        encoder.of_phones(to_phones("안녕하세요"), np.zeros((3, encoder.width), np.float32))


def test_features_are_computed_once_and_read_from_the_store(folder: Path, tmp_path: Path) -> None:
    encoder = BGEM3(folder)
    first = ShardWriter(tmp_path / "features", "bge_m3-000001", half={KIND})
    assert cache_features(encoder, [*TEXTS, *TEXTS], Features(tmp_path), first, progress=False) == len(set(TEXTS))
    again = ShardWriter(tmp_path / "features", "bge_m3-000002", half={KIND})
    assert cache_features(encoder, TEXTS, Features(tmp_path), again, progress=False) == 0
    assert not again.path.exists()
    (stored,) = Features(tmp_path).read_kind(KIND, [encoder.key(TEXTS[3])])
    np.testing.assert_allclose(stored, encoder.of_text(TEXTS[3]), atol=2e-3)


def test_the_key_follows_the_text_the_layer_and_the_weights(folder: Path, copied: Path) -> None:
    keys = {BGEM3(folder).key("a"), BGEM3(folder).key("b"), BGEM3(folder, layer=-1).key("a")}
    weights = copied / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    keys.add(BGEM3(copied).key("a"))
    assert len(keys) == 4
    assert BGEM3(folder).key("a") in keys


def test_an_encoder_travels_to_other_processes_without_its_weights(folder: Path) -> None:
    encoder = BGEM3(folder)
    encoder.of_text("hello")
    other = pickle.loads(pickle.dumps(encoder))
    assert "_model" not in vars(other)
    np.testing.assert_array_equal(other.of_text("hello"), encoder.of_text("hello"))


def test_every_missing_file_is_named(tmp_path: Path, copied: Path) -> None:
    with pytest.raises(EncoderError, match=r"is no folder.*config\.json, tokenizer\.json, model\.safetensors"):
        BGEM3(tmp_path / "nowhere")
    (copied / "tokenizer.json").unlink()
    (copied / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"misses tokenizer\.json, model\.safetensors or"):
        BGEM3(copied)


@pytest.mark.parametrize("change", [{"model_type": "bert"}, {"hidden_size": None}, {"vocab_size": 3}])
def test_another_kind_of_model_is_refused(copied: Path, change: dict[str, object]) -> None:
    config = json.loads((copied / "config.json").read_text()) | change
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match=r"expected 'xlm-roberta'|files of the same model"):
        BGEM3(copied)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_file_that_is_none_is_refused(copied: Path, name: str) -> None:
    (copied / name).write_text("<html>")
    with pytest.raises(EncoderError, match=name):
        BGEM3(copied)


def test_damaged_or_foreign_weights_are_refused(copied: Path) -> None:
    weights = copied / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EncoderError, match="downloaded whole"):
        BGEM3(copied).of_text("a")
    weights.write_bytes(whole)
    config = json.loads((copied / "config.json").read_text()) | {"num_hidden_layers": 5}
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="weights are missing"):
        BGEM3(copied, layer=-1).of_text("a")


def test_files_of_the_public_repository_s_kind_are_read(folder: Path, copied: Path) -> None:
    """It has pytorch_model.bin, with a pooler and positions that are not used, and older names in config.json."""
    from safetensors.torch import load_file

    extra = {"pooler.dense.weight": torch.zeros(16, 16), "pooler.dense.bias": torch.zeros(16)}
    extra["embeddings.position_ids"] = torch.arange(66)[None]
    torch.save(load_file(copied / "model.safetensors") | extra, copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    config = json.loads((copied / "config.json").read_text())
    older = {"torch_dtype": "float32", "output_past": True, "position_embedding_type": "absolute", "_name_or_path": "x"}
    (copied / "config.json").write_text(json.dumps(config | older))
    np.testing.assert_array_equal(BGEM3(copied).of_text("a"), BGEM3(folder).of_text("a"))


def test_a_text_beyond_the_positions_is_refused(folder: Path) -> None:
    encoder = BGEM3(folder)
    assert encoder.max_tokens == 64
    assert len(encoder.of_text("가 " * 31)) <= 64
    with pytest.raises(EncoderError, match=r"tokens, the encoder takes 64; split it"):
        list(encoder.encode(["short", "가나 다라 " * 40]))


@pytest.mark.parametrize("layer", [5, -5])
def test_a_layer_beyond_the_model_is_refused(folder: Path, layer: int) -> None:
    with pytest.raises(EncoderError, match="expected -4 to 3"):
        BGEM3(folder, layer=layer)
