"""Everything that an audit can find: how bad it is, what is counted, what it means and what to do about it.

An error stops or spoils a training; a warning should be looked at; an info is worth knowing and often meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]
Area = Literal["manifest", "pairs", "splits", "speakers", "text", "audio", "features"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Kind:
    """One thing that can be wrong, or worth knowing."""

    severity: Severity
    area: Area
    unit: str  # what is counted
    title: str
    advice: str


def _kinds(severity: Severity, area: Area, unit: str, kinds: dict[str, tuple[str, str]]) -> dict[str, Kind]:
    return {name: Kind(severity, area, unit, title, advice) for name, (title, advice) in kinds.items()}


_MANIFEST = _kinds(
    "error",
    "manifest",
    "lines",
    {
        "line_not_json": (
            "no JSON object",
            "Write these lines again; a torn last line means that its writer was stopped.",
        ),
        "line_encoding": ("not UTF-8", "Convert the file to UTF-8 from the encoding it was written in."),
        "line_too_long": ("too long for a pair", "Remove them: two files may have been joined without line ends."),
        "line_missing_field": ("a required field is missing", "Write the field, or remove the lines."),
        "line_wrong_type": ("a field of another type", "Write lengths as whole numbers and names as text."),
        "line_length": ("a length below 1", "Extract these clips' features again, or remove the lines."),
        "line_outside": (
            "a path that leaves the data folder",
            "Write paths relative to the manifest's folder, or set allow_outside_paths if they are meant.",
        ),
        "line_duplicate_id": ("an id that another line has", "Keep one line per id."),
        "line_no_rows": ("a manifest without pairs", "Name another manifest, or make the pairs."),
    },
)
_PAIRS = (
    _kinds(
        "error",
        "pairs",
        "pairs",
        {
            "prompt_is_target": (
                "the prompt is the target",
                "Pair the target with another clip of its speaker: the model would learn to copy.",
            ),
            "prompt_other_speaker": (
                "the prompt is another speaker's",
                "Pair clips of one speaker: the model would learn to ignore the prompt's voice.",
            ),
            "prompt_missing": (
                "the prompt, or a file of it, is not there",
                "Extract the prompt's features again, or pair the target with another clip.",
            ),
        },
    )
    | _kinds(
        "warning",
        "pairs",
        "pairs",
        {
            "pair_repeated": ("the same target and prompt again", "Keep one: repeated pairs weigh double."),
            "field_missing": (
                "lacks a path that other pairs have",
                "Write it, or make manifests of different origin alike before they are joined.",
            ),
            "mel_order": (
                "has a mel behind pairs without one",
                "Order the manifest (python -m tts_kernel.data.extract DATA), or training stops before these pairs.",
            ),
        },
    )
    | _kinds(
        "info",
        "pairs",
        "pairs",
        {
            "mel_missing": ("no mel yet", "Extract more mels to train on them: python -m tts_kernel.data.extract DATA"),
            "mel_unlisted": (
                "a mel that the manifest does not name",
                "Order the manifest to train on them, too: python -m tts_kernel.data.extract DATA",
            ),
            "prompt_unknown": (
                "the prompt is no target, so nothing tells its speaker",
                "Nothing, if the prompts were chosen by speaker.",
            ),
        },
    )
)
_CLIPS = {
    "clip_disagrees": Kind(
        "error",
        "pairs",
        "clips",
        "rows of one clip disagree",
        "Give every row of a clip the same speaker, language, text and lengths; find out which are right.",
    )
}
_SPLITS = {
    "leak_clip": Kind(
        "error",
        "splits",
        "clips",
        "in both training and validation",
        "Take them out of one split: a loss on known clips says nothing.",
    ),
    "leak_audio": Kind(
        "error",
        "splits",
        "files",
        "the same sound in training and validation",
        "Take one of the copies out: a loss on known clips says nothing.",
    ),
    "leak_recording": Kind(
        "warning",
        "splits",
        "recordings",
        "clips of one recording in both splits",
        "Split by recording or by speaker: clips of one recording share room, voice and often words.",
    ),
    "leak_speaker": Kind(
        "info",
        "splits",
        "speakers",
        "in both splits",
        "Nothing, if validation is to judge known voices; split by speaker to judge new ones.",
    ),
}
_SPEAKERS = {
    "mapping_unusable": Kind(
        "error",
        "speakers",
        "files",
        "a speaker mapping that cannot be read",
        "Make it anew from the manifest, or leave speaker_mapping empty.",
    ),
    "mapping_low": Kind(
        "error",
        "speakers",
        "pairs",
        "too few pairs have a mapped speaker",
        "Make the mapping from this manifest: names that do not match leave the adversary without labels.",
    ),
    "mapping_unused": Kind(
        "warning",
        "speakers",
        "names",
        "mapped, but not in the manifest",
        "Check the names: the mapping may belong to another corpus or to another spelling.",
    ),
    "mapping_unmatched": Kind(
        "info", "speakers", "speakers", "not in the mapping", "Nothing, if they have too few clips to be told apart."
    ),
}
_TEXT = {
    "text_empty": Kind(
        "error", "text", "clips", "nothing to speak", "Transcribe these clips, or remove them: they teach babble."
    )
} | _kinds(
    "warning",
    "text",
    "clips",
    {
        "text_control": (
            "control characters or lost bytes",
            "Clean the text; U+FFFD stands for bytes that were lost in a conversion.",
        ),
        "text_unknown": (
            "tokens unknown to the tokenizer",
            "Normalise the text, or extend the vocabulary: an unknown token has one sound for all.",
        ),
        "text_ids_differ": (
            "stored token ids are not the tokenizer's",
            "Encode the text again with the tokenizer of the model that will be trained.",
        ),
        "text_language": (
            "written in another language than the field says",
            "Correct the field, or the text: one of them belongs to another clip.",
        ),
        "text_no_language": ("no language", "Write the language: it cannot be balanced or checked without."),
        "text_tempo": (
            "text too long or too short for its sound",
            "Listen: the text is often another clip's, cut off, or the sound mostly silence or music.",
        ),
        "text_repeated": (
            "the same text by the same speaker again",
            "Keep one, unless the speaker really said it twice.",
        ),
    },
)
_AUDIO = (
    _kinds(
        "error",
        "audio",
        "files",
        {
            "audio_missing": ("no such audio file", "Restore the file, or remove the pairs."),
            "audio_unreadable": ("not readable as audio", "Fetch the file again: it is empty or no audio."),
            "audio_truncated": ("cut off", "Fetch the file again: it holds less than its header says."),
            "audio_not_finite": ("NaN or infinite samples", "Decode the clip again; one such clip ruins a training."),
            "audio_silent": ("silence only", "Remove the clip."),
            "audio_length": (
                "another duration than its mel or manifest says",
                "Extract the features again from this audio: they are another recording's, or another cut's.",
            ),
        },
    )
    | _kinds(
        "warning",
        "audio",
        "files",
        {
            "audio_short": ("shorter than min_duration", "Remove them, or join them with their neighbours."),
            "audio_long": ("longer than max_duration", "Cut them at pauses, or remove them."),
            "audio_rate_low": (
                "sample rate below min_sample_rate",
                "Remove them: what lies above half the rate is missing, however it is resampled.",
            ),
            "audio_quiet": ("quieter than min_level", "Normalise the level, and check that there is speech at all."),
            "audio_clipped": ("clipped", "Take a source that is not overdriven, or remove the clip."),
            "audio_silence": ("long silence at an end", "Trim it: it teaches long pauses before and after speech."),
            "audio_shared": (
                "the audio file of another clip",
                "Cut the recording into a file for each clip: a pair has no place for where its clip begins.",
            ),
            "audio_repeated": ("the same sound as another clip", "Keep one: repeated clips weigh double."),
        },
    )
    | _kinds(
        "info",
        "audio",
        "files",
        {
            "audio_rates": ("other sample rates than most", "Nothing: extraction resamples."),
            "audio_channels": ("more than one channel", "Nothing, if both hold the same voice: channels are averaged."),
        },
    )
)
_FEATURES = _kinds(
    "error",
    "features",
    "files",
    {
        "feature_missing": ("no such feature", "Extract it, or remove the pairs."),
        "feature_unreadable": ("damaged", "Delete the file and extract it again."),
        "feature_not_finite": ("NaN or infinite values", "Extract it again; one such file ruins a training."),
        "feature_length": ("another length than the manifest says", "Extract it again, or correct the manifest."),
        "feature_width": ("another width than most of its kind", "Extract it again with the settings of the others."),
        "feature_ids": ("ids that the vocabulary does not have", "Encode again with the tokenizer of this corpus."),
    },
) | {
    "shard_damaged": Kind(
        "error",
        "features",
        "shards",
        "a shard of packed features that cannot be read",
        "See python -m tts_kernel.data.features check DATA; what it held has to be extracted or packed again.",
    ),
    "feature_absent": Kind(
        "info",
        "features",
        "files",
        "named by the manifest, none of its kind made yet",
        "Extract this kind before a training that reads it.",
    ),
}
KINDS: dict[str, Kind] = _MANIFEST | _PAIRS | _CLIPS | _SPLITS | _SPEAKERS | _TEXT | _AUDIO | _FEATURES
