"""The common utterance table: one row per clip, whatever corpus it came from.

    id           unique
    audio        path relative to `Utterances.root`, or absolute where the source says so
    text         as written, without the blanks around it
    speaker      "" where unknown
    language     as the source writes it, nothing guessed; "" where unknown
    duration     seconds, null where unknown
    sample_rate  Hz, null where unknown
    recording    what the clip was cut from, null where unknown

Other columns ride along: `start` (seconds into the audio where the clip begins, for Kaldi segments), `dnsmos`,
`raw_text`, `utt_embedding`, `spk_embedding`, `speech_token`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.corpora.probe import probe

log = logging.getLogger(__name__)

Seconds = float
TEXT = pa.large_string()  # a plain string column ends at 2 GB
COLUMNS = {
    "id": TEXT,
    "audio": TEXT,
    "text": TEXT,
    "speaker": TEXT,
    "language": TEXT,
    "duration": pa.float64(),
    "sample_rate": pa.int32(),
    "recording": TEXT,
}
FILLED = ("id", "audio", "text", "speaker", "language")  # never null
EXAMPLES = 5  # of each kind of drop


class CorpusError(ValueError):
    """A corpus that cannot be read or written as asked."""


@dataclass(frozen=True)
class Utterances:
    """A corpus: its clips (see the head of this file) and the folder that their audio paths start from."""

    table: pa.Table
    root: Path

    def __post_init__(self) -> None:
        for name, kind in COLUMNS.items():
            found = self.table.schema.field(name).type if name in self.table.column_names else None
            if found != kind:
                raise CorpusError(f"utterance table: column {name!r} is {found}, expected {kind}; see Utterances.of")
        for name in FILLED:
            if self.table.column(name).null_count:
                raise CorpusError(f"utterance table: column {name!r} has nulls; fill them with an empty text")

    @classmethod
    def of(cls, root: Path, **columns: Sequence[object] | pa.Array | pa.ChunkedArray) -> Utterances:
        """A table from columns by name; `id`, `audio` and `text` are needed, the others are filled as unknown.
        Raises CorpusError if ids repeat."""
        missing = [name for name in ("id", "audio", "text") if name not in columns]
        if missing:
            raise CorpusError(f"utterance table: no column {', '.join(missing)}; a clip has an id, an audio and a text")
        table = complete(pa.table({name: _column(name, values) for name, values in columns.items()}))
        repeated = np.flatnonzero(~first_of_each(table.column("id")))
        if len(repeated):
            shown = table.column("id").take(pa.array(repeated[:EXAMPLES])).to_pylist()
            raise CorpusError(f"utterance table: {len(repeated)} ids occur before, such as {shown}; ids are unique")
        return cls(table, Path(root))

    def __len__(self) -> int:
        return self.table.num_rows

    def strings(self, name: str) -> pa.ChunkedArray:
        return self.table.column(name)

    def has(self, name: str) -> np.ndarray:
        """(rows,) bool: where the column exists and is filled."""
        if name not in self.table.column_names:
            return np.zeros(len(self), dtype=bool)
        return self.table.column(name).is_valid().to_numpy()

    def take(self, rows: np.ndarray) -> Utterances:
        """The rows at these positions, in this order."""
        return Utterances(self.table.take(pa.array(rows)), self.root)

    def where(self, keep: np.ndarray) -> Utterances:
        """The rows where `keep` (rows,) is true."""
        return Utterances(self.table.filter(pa.array(keep)), self.root)

    def with_column(self, name: str, values: Sequence[object] | pa.Array | pa.ChunkedArray) -> Utterances:
        """The same table with a column added or replaced."""
        column = _column(name, values)
        if len(column) != len(self):
            raise CorpusError(f"column {name!r} has {len(column)} values for {len(self)} utterances")
        table = self.table
        place = table.column_names.index(name) if name in table.column_names else None
        added = table.append_column(name, column) if place is None else table.set_column(place, name, column)
        return Utterances(added, self.root)

    def paths(self) -> list[Path]:
        """Where every clip's audio lies."""
        return [self.root / path for path in self.table.column("audio").to_pylist()]

    @property
    def hours(self) -> float:
        """Of the clips whose duration is known; `has("duration")` says which."""
        return float(pc.sum(self.table.column("duration"), min_count=0).as_py()) / 3600

    def speakers(self) -> pa.Table:
        """speaker, clips, seconds (of the clips with a known duration); most clips first, then by name."""
        return self._groups("speaker")

    def languages(self) -> pa.Table:
        """language, clips, seconds; most clips first, then by name."""
        return self._groups("language")

    def _groups(self, name: str) -> pa.Table:
        grouped = self.table.select([name, "duration"]).group_by(name)
        summed = grouped.aggregate([(name, "count"), ("duration", "sum")])
        seconds = pc.fill_null(summed.column("duration_sum"), 0.0)
        table = pa.table({name: summed.column(name), "clips": summed.column(f"{name}_count"), "seconds": seconds})
        return table.sort_by([("clips", "descending"), (name, "ascending")])

    def with_durations(self, workers: int | None = None) -> Utterances:
        """Durations and sample rates from the headers of the files where the table has none, by threads.

        What cannot be read stays unknown, with a warning; importing with `probe=True` drops it, with its reason."""
        rows = np.flatnonzero(~self.has("duration") | ~self.has("sample_rate"))
        paths = self.table.column("audio").take(pa.array(rows)).to_pylist()
        heads = probe([self.root / path for path in paths], workers)
        if heads.problems:
            row, why = next(iter(heads.problems.items()))
            log.warning(
                "%d of %d audio files are unreadable, such as %s: %s", len(heads.problems), len(rows), paths[row], why
            )
        return Utterances(with_headers(self.table, rows, heads.seconds, heads.rates), self.root)


@dataclass
class Drop:
    """Rows that were left out for one reason, and the first of them."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Account:
    """What was read, kept and dropped: read = kept + the counts of all drops."""

    source: str
    read: int = 0
    kept: int = 0
    drops: dict[str, Drop] = field(default_factory=dict)

    def drop(self, reason: str, count: int, examples: Iterable[str]) -> None:
        """Count rows as left out; of the examples the first few are kept."""
        if count:
            entry = self.drops.setdefault(reason, Drop())
            entry.count += count
            for _, example in zip(range(EXAMPLES - len(entry.examples)), examples, strict=False):
                entry.examples.append(example)

    @property
    def dropped(self) -> int:
        return sum(drop.count for drop in self.drops.values())

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.read:,} read, {self.kept:,} kept, {self.dropped:,} dropped"]
        for reason, drop in sorted(self.drops.items(), key=lambda item: -item[1].count):
            lines.append(f"  {drop.count:,} {reason}")
            lines += [f"    {example}" for example in drop.examples]
        return "\n".join(lines)


@dataclass(frozen=True)
class Imported:
    """The clips of a corpus that can be used, and what became of the others."""

    utterances: Utterances
    account: Account


def complete(table: pa.Table) -> pa.Table:
    """The columns of the common table in their order and types, unknown where missing; then the others."""
    known = []
    for name, kind in COLUMNS.items():
        if name in table.column_names:
            column = table.column(name)
            known.append(column if column.type == kind else column.cast(kind))
        elif name in FILLED:
            known.append(pa.repeat(pa.scalar("", TEXT), table.num_rows))
        else:
            known.append(pa.nulls(table.num_rows, kind))
    others = [name for name in table.column_names if name not in COLUMNS]
    return pa.table([*known, *(table.column(name) for name in others)], names=[*COLUMNS, *others])


def with_headers(table: pa.Table, rows: np.ndarray, seconds: np.ndarray, rates: np.ndarray) -> pa.Table:
    """Durations and sample rates filled in at `rows` where they are null; NaN and 0 say that nothing is known."""
    for name, found, unknown in (("duration", seconds, np.isnan(seconds)), ("sample_rate", rates, rates == 0)):
        column = table.column(name)
        empty = column.is_null().to_numpy()
        values = column.fill_null(0).to_numpy().copy()
        values[rows] = np.where(empty[rows], found, values[rows])
        known = ~empty
        known[rows] |= ~unknown
        filled = pa.array(values, COLUMNS[name], mask=~known)
        table = table.set_column(table.column_names.index(name), name, filled)
    return table


def first_of_each(names: pa.ChunkedArray) -> np.ndarray:
    """(rows,) bool: where a name occurs for the first time."""
    encoded = names.combine_chunks().dictionary_encode()  # numbers names in the order of their first occurrence
    codes = encoded.indices.to_numpy()
    first = np.ones(len(codes), dtype=bool)
    first[1:] = codes[1:] > np.maximum.accumulate(codes)[:-1]
    return first


def _column(name: str, values: Sequence[object] | pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    kind = COLUMNS.get(name)
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values if kind is None else values.cast(kind)
    return pa.array(values, kind)


def require(path: Path, name: str) -> Path:
    """The file `path`, or the file `name` in the folder `path`. Raises CorpusError if there is none."""
    found = path / name if path.is_dir() else path
    if not found.is_file():
        raise CorpusError(f"{found}: no such file; expected a corpus's {name} or the folder that holds it")
    return found
