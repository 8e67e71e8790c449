from __future__ import annotations

from pathlib import Path

import pytest

from tts_kernel.data.pipeline import PipelineError, read_pipeline
from tts_kernel.data.pipeline.processors import MEL, Batching, ComputeFbank, Filter, Padding, Sort

# The tags and shapes of upstream's cosyvoice2.yaml, with values of our own.
UPSTREAM = """
__set_seed1: !apply:random.seed [1986]
__made: !apply:os.mkdir [{folder}]
sample_rate: 24000
token_frame_rate: 25
llm: !new:cosyvoice.llm.llm.Qwen2LM
    sizes: [1, 2]
    sampling: !name:cosyvoice.utils.common.ras_sampling
        top_p: 0.8
chunk: !ref <token_frame_rate> * <token_frame_rate>
get_tokenizer: !name:cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer
    token_path: ''
parquet_opener: !name:cosyvoice.dataset.processor.parquet_opener
tokenize: !name:cosyvoice.dataset.processor.tokenize
    get_tokenizer: !ref <get_tokenizer>
    allowed_special: all
filter: !name:cosyvoice.dataset.processor.filter
    max_length: 40960
    min_length: 100
    token_max_length: !ref <token_frame_rate> * <token_frame_rate>
    token_min_length: 1
resample: !name:cosyvoice.dataset.processor.resample
    resample_rate: !ref <sample_rate>
feat_extractor: !name:matcha.utils.audio.mel_spectrogram
    n_fft: 1920
    num_mels: 80
    sampling_rate: !ref <sample_rate>
    hop_size: 480
    win_size: 1920
    fmin: 0
    fmax: 8000
    center: False
compute_fbank: !name:cosyvoice.dataset.processor.compute_fbank
    feat_extractor: !ref <feat_extractor>
sort: !name:cosyvoice.dataset.processor.sort
    sort_size: 40
batch: !name:cosyvoice.dataset.processor.batch
    batch_type: 'dynamic'
    max_frames_in_batch: 2500
padding: !name:cosyvoice.dataset.processor.padding
    use_spk_embedding: True
data_pipeline: [
    !ref <parquet_opener>, !ref <tokenize>, !ref <filter>, !ref <resample>, !ref <compute_fbank>,
    !ref <sort>, !ref <batch>, !ref <padding>,
]
"""
OURS = """
train_data_pipeline:
  - processor: filter
    conf: {max_length: 40960, min_length: 0, token_max_length: 400, token_min_length: 1}
  - processor: sort
    conf: {sort_size: 40}
  - processor: batch
    conf: {batch_type: dynamic, max_frames_in_batch: 400}
"""


# Each line nine times the one before: 28 lines for more values than a machine can hold.
LAUGHS = "a0: &a0 [ha]\n" + "".join(
    f"a{line}: &a{line} [{', '.join([f'*a{line - 1}'] * 9)}]\n" for line in range(1, 28)
)


REFERENCES = "r0: [ha]\n" + "".join(f"r{line}: [{', '.join([f'!ref <r{line - 1}>'] * 9)}]\n" for line in range(1, 10))


def written(folder: Path, text: str) -> Path:
    path = folder / "conf.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_upstreams_file_is_read_for_its_values_and_runs_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made"
    found = read_pipeline(written(tmp_path, UPSTREAM.replace("{folder}", str(made))))
    assert not made.exists()
    assert found.of(Filter) == Filter(max_length=40960, min_length=100, token_max_length=625, token_min_length=1)
    assert found.batching == Batching(batch_type="dynamic", max_frames_in_batch=2500)
    assert (found.of(Sort), found.of(Padding)) == (Sort(sort_size=40), Padding(use_spk_embedding=True))
    fbank = found.of(ComputeFbank)
    assert fbank is not None
    assert fbank.feat_extractor == {"name": "matcha.utils.audio.mel_spectrogram", **MEL}
    assert found.filled_in == ("parse_embedding",)


def test_our_layout_is_read(tmp_path: Path) -> None:
    found = read_pipeline(written(tmp_path, OURS))
    assert found.of(Filter) == Filter(max_length=40960, min_length=0, token_max_length=400)
    assert found.batching.max_frames_in_batch == 400


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.mkdir [{folder}]",
        "!!python/name:os.system ''",
        "!include:other.yaml ''",
        "!module:os x",
    ],
)
def test_tags_that_run_code_or_read_files_are_refused(tmp_path: Path, value: str) -> None:
    made = tmp_path / "made"
    text = OURS.replace("token_max_length: 400", "token_max_length: " + value.replace("{folder}", str(made)))
    with pytest.raises(PipelineError, match=r"conf\.yaml: nothing was run; .*line 4"):
        read_pipeline(written(tmp_path, text))
    assert not made.exists()


def test_every_wrong_entry_is_named(tmp_path: Path) -> None:
    wrong = "!ref <srot>, !ref <feat_extractor>, {processor: sort, config: {}}, 7, {processor: shufle},"
    text = UPSTREAM.replace("!ref <sort>,", wrong).replace("max_frames_in_batch", "max_frames")
    with pytest.raises(PipelineError) as caught:
        read_pipeline(written(tmp_path, text))
    said = str(caught.value)
    for expected in (
        "6 problems",
        "'shufle': unknown; did you mean shuffle?",
        "batch: max_frames: not a parameter; did you mean max_frames_in_batch?",
        "!ref <srot>: no processor of that name",
        "matcha.utils.audio.mel_spectrogram is no processor",
        "processor sort: unknown key config",
        "7: expected a processor",
    ):
        assert expected in said


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\n", "no list train_data_pipeline or data_pipeline"),
        ("train_data_pipeline: []\n", "no list"),
        ("- 1\n", "no list"),
        (OURS + OURS, "'train_data_pipeline' occurs twice"),
        (OURS.replace("max_frames_in_batch: 400", "max_frames_in_batch: 400, max_frames_in_batch: 4"), "occurs twice"),
        (OURS.replace("sort_size: 40", "sort_size: !ref <gone>"), "!ref <gone>: no such value"),
        ("a: !ref <b>\nb: !ref <a>\n" + OURS.replace("sort_size: 40", "sort_size: !ref <a>"), "some in a circle"),
        (
            "a: x\n" + OURS.replace("sort_size: 40", "sort_size: !ref <a> * <a>"),
            "found 'x' and 'x', expected two numbers",
        ),
        (LAUGHS + OURS.replace("sort_size: 40", "sort_size: *a20"), "more than 10,000 values, or some in a circle"),
        (LAUGHS + OURS.replace("- processor: sort", "- *a20\n  - processor: sort"), "more than 10,000 values"),
        (REFERENCES + OURS.replace("sort_size: 40", "sort_size: !ref <r9>"), "more than 10,000 values"),
        (OURS.replace("{sort_size: 40}", "&own {sort_size: *own}"), "some in a circle"),
        ("a: [1\n", "nothing was run"),
        (OURS.replace("processor: sort", "processor: srot"), "'srot': unknown; did you mean sort"),
        (OURS.replace("sort_size", "size"), "sort: size: not a parameter; did you mean sort_size"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(PipelineError, match=reason):
        read_pipeline(written(tmp_path, text))


def test_an_alias_stands_for_its_value(tmp_path: Path) -> None:
    found = read_pipeline(written(tmp_path, "size: &size 70\n" + OURS.replace("sort_size: 40", "sort_size: *size")))
    assert found.of(Sort) == Sort(sort_size=70)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"gone\.yaml: no such file; expected a YAML file with train_data_pipeline"):
        read_pipeline(tmp_path / "gone.yaml")
    with pytest.raises(PipelineError, match=r"is a directory; expected a YAML file"):
        read_pipeline(tmp_path)
