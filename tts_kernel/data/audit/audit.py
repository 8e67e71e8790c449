"""The pass itself: the columns of every row, then the files of a sample of clips, then what both say together."""

from __future__ import annotations

from typing import Any

import numpy as np

from tts_kernel.data.audit import media, pairs, text, tokens
from tts_kernel.data.audit.corpus import Corpus
from tts_kernel.data.audit.findings import Finding, in_order
from tts_kernel.data.audit.report import Report, case_table, sound_table
from tts_kernel.data.audit.sample import Sample, open_sample
from tts_kernel.data.audit.settings import AuditSettings
from tts_kernel.data.audit.speakers import check_mapping, match
from tts_kernel.data.audit.splits import check_leaks
from tts_kernel.data.audit.summary import describe_clips, describe_sounds, describe_tempo
from tts_kernel.data.features import Features


def audit(corpus: Corpus, settings: AuditSettings) -> Report:
    """Look at every row, and at the audio and the features of `settings.sample` clips."""
    rows = corpus.rows
    findings, summary = _check_rows(corpus, settings)
    sample = open_sample(corpus, settings)
    seconds, source = media.manifest_seconds(rows)
    if sample.sounds is not None:
        seconds, source = media.calibrated(seconds, source, sample.sounds)
        findings += media.check_sounds(sample.sounds, sample.rows, settings, seconds)
        summary["sounds"] = describe_sounds(sample.sounds)
    if settings.check_features:
        features = Features(corpus.root)
        findings += media.check_shards(features) + pairs.check_unlisted(rows, features)
        if sample.arrays is not None:
            vocabulary = corpus.tokenizer.vocab_size if corpus.tokenizer else 0
            findings += media.check_arrays(sample.arrays, sample.rows, features, vocabulary)
    texts, found, about_texts = _check_texts(corpus, settings, sample, seconds)
    summary |= describe_clips(rows, seconds, source) | about_texts
    summary["sample"] = {
        "clips": len(sample.clips),
        "of": len(rows.clips),
        "audio_files": len(sample.sounds.table) if sample.sounds else 0,
        "feature_files": len(sample.arrays.table) if sample.arrays else 0,
    }
    ordered = tuple(in_order(findings + found))
    sounds = sound_table(rows, sample.sounds, texts)
    return Report(corpus.root, ordered, summary, case_table(rows, ordered, texts), sounds)


def _check_rows(corpus: Corpus, settings: AuditSettings) -> tuple[list[Finding], dict[str, Any]]:
    rows = corpus.rows
    findings = [item for split in rows.splits for item in pairs.check_lines(split, settings.allow_outside_paths)]
    findings += pairs.check_pairs(rows) + pairs.check_fields(rows) + pairs.check_mels(rows)
    findings += pairs.check_shared_audio(rows) + check_leaks(rows)
    if corpus.mapping is None:
        return findings, {"mapping": ""}
    found, unusable = match(rows.splits[0].manifest, corpus.mapping)
    findings += check_mapping(found, settings.min_speaker_coverage) if found else unusable
    return findings, {"mapping": str(found or "unusable")}


def _check_texts(
    corpus: Corpus, settings: AuditSettings, sample: Sample, seconds: np.ndarray
) -> tuple[text.Texts | None, list[Finding], dict[str, Any]]:
    rows, tokenizer = corpus.rows, corpus.tokenizer
    findings = text.check_language_field(rows)
    summary: dict[str, Any] = {"text_from": "", "unknown_tokens": {}}
    stored = tokens.stored_tokens(sample.arrays) if sample.arrays else None
    texts = text.of_column(rows)
    fresh = None
    if texts is not None and tokenizer:
        fresh = tokens.encoded(texts, sample.clips, tokenizer, sampled=sample.is_part)
        if stored:
            findings += tokens.check_encoding(rows, stored, fresh)
    elif texts is None and stored and tokenizer:
        texts = text.decoded(stored.clips, stored.ids, tokenizer, sample.is_part)
    known = fresh or stored
    if known and tokenizer:
        findings += tokens.check_tokens(rows, known, tokenizer, settings.max_unknown_tokens)
        summary["unknown_tokens"] = tokens.unknown_rates(rows, known, tokenizer)
    if texts is not None:
        findings += text.check_texts(rows, texts)
        summary["text_from"] = texts.source
    tempo = text.tempo_of_texts(texts, seconds) if texts is not None else text.tempo_of_tokens(rows, seconds)
    sampled = texts is not None and texts.sampled
    findings += text.check_tempo(rows, tempo, settings, sampled=sampled)
    return texts, findings, summary | {"tempo": describe_tempo(rows, tempo)}
