"""What the tokenizer says of the texts: which it does not know, and which were encoded by another one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.audit.findings import Finding, in_clips
from tts_kernel.data.audit.media import Opened
from tts_kernel.data.audit.rows import Rows
from tts_kernel.data.audit.text import Texts, by_language
from tts_kernel.text.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Tokens:
    """The token ids of some clips, in ascending order of the clips' numbers."""

    clips: np.ndarray  # (clips,) numbers
    ids: Sequence[list[int]]
    sampled: bool


def stored_tokens(opened: Opened) -> Tokens:
    """Those in the feature files that were opened."""
    table = opened.table
    is_text = pc.equal(table.column("column"), "target_text_ids_path")
    whole = table.filter(pc.and_(is_text, pc.equal(table.column("status"), "ok")))
    clips, first = np.unique(opened.rows.clip[whole.column("row").to_numpy()], return_index=True)
    lists = whole.column("ids").take(pa.array(first)).to_pylist()
    return Tokens(clips, [each or [] for each in lists], opened.sampled)


def encoded(texts: Texts, clips: np.ndarray, tokenizer: TextTokenizer, *, sampled: bool) -> Tokens:
    """Those that the tokenizer makes of the texts of these of their clips."""
    places = np.flatnonzero(np.isin(texts.clips, clips))
    return Tokens(
        texts.clips[places],
        [tokenizer.encode(text) for text in texts.texts.take(pa.array(places)).to_pylist()],
        sampled,
    )


def check_tokens(rows: Rows, tokens: Tokens, tokenizer: TextTokenizer, most: float) -> list[Finding]:
    """Clips in whose text more than the share `most` of tokens is unknown."""
    unknown, count = _unknown(tokens, tokenizer)

    def what(members: np.ndarray) -> Iterable[str]:
        return (f"{unknown[place]} of {count[place]} tokens" for place in np.searchsorted(tokens.clips, members))

    over = unknown / np.maximum(count, 1) > most
    return in_clips("text_unknown", rows, tokens.clips[over], len(count), what, sampled=tokens.sampled)


def check_encoding(rows: Rows, stored: Tokens, fresh: Tokens) -> list[Finding]:
    """Clips whose stored ids are not what the tokenizer makes of their text."""
    made = dict(zip(fresh.clips.tolist(), fresh.ids, strict=True))
    other = [
        place
        for place, (clip, ids) in enumerate(zip(stored.clips.tolist(), stored.ids, strict=True))
        if clip in made and made[clip] != ids
    ]

    def what(members: np.ndarray) -> Iterable[str]:
        for place in np.searchsorted(stored.clips, members):
            yield f"stored {_short(stored.ids[place])}, the text gives {_short(made[int(stored.clips[place])])}"

    total = int(np.isin(stored.clips, fresh.clips).sum())
    return in_clips("text_ids_differ", rows, stored.clips[other], total, what, sampled=stored.sampled)


def unknown_rates(rows: Rows, tokens: Tokens, tokenizer: TextTokenizer) -> dict[str, float]:
    """Language -> share of its tokens that the tokenizer does not know."""
    unknown, count = _unknown(tokens, tokenizer)
    return {
        language: float(unknown[places].sum() / max(count[places].sum(), 1))
        for language, places in by_language(rows, tokens.clips).items()
    }


def _unknown(tokens: Tokens, tokenizer: TextTokenizer) -> tuple[np.ndarray, np.ndarray]:
    unknown = np.array([ids.count(tokenizer.unknown_id) for ids in tokens.ids], dtype=np.int64)
    return unknown, np.array([len(ids) for ids in tokens.ids], dtype=np.int64)


def _short(ids: list[int]) -> str:
    return f"{ids[:6]}{'...' if len(ids) > 6 else ''} ({len(ids)})"
