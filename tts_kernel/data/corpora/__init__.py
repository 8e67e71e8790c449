"""Corpora of several layouts, read into one table of utterances and written from it."""

from tts_kernel.data.corpora.cosyvoice2 import read_cosyvoice2, write_cosyvoice2
from tts_kernel.data.corpora.emilia import read_emilia, write_emilia
from tts_kernel.data.corpora.folder import read_folder, write_folder
from tts_kernel.data.corpora.kaldi import read_kaldi, write_kaldi
from tts_kernel.data.corpora.ljspeech import read_ljspeech, write_ljspeech
from tts_kernel.data.corpora.melotts import read_melotts, write_melotts
from tts_kernel.data.corpora.table import Account, CorpusError, Imported, Utterances

KINDS = ("emilia", "ljspeech", "melotts", "cosyvoice2", "kaldi", "folder")  # each with its read_ and write_

__all__ = [
    "KINDS",
    "Account",
    "CorpusError",
    "Imported",
    "Utterances",
    "read_cosyvoice2",
    "read_emilia",
    "read_folder",
    "read_kaldi",
    "read_ljspeech",
    "read_melotts",
    "write_cosyvoice2",
    "write_emilia",
    "write_folder",
    "write_kaldi",
    "write_ljspeech",
    "write_melotts",
]
