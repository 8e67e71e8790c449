"""Speak the sentences of the demo corpus with eSpeak NG: `python -m tts_kernel.data.demo.speech JOBS.jsonl OUT_FOLDER`.

Only ever run this file as a program, never import it from the package: eSpeak NG is GPL-3, comes with the extra
`tts_kernel[demo]` (espeakng-loader) and stays in a process of its own.

A job is one JSON object per line:
  path      wav file to write, relative to OUT_FOLDER (22,050 Hz, 16 bit)
  text      what to say; language as eSpeak names it (ko, en-us, cmn, ja); variant of the voice (f1 .. m8)
  rate      words per minute; pitch, range 0 to 99, 50 is the voice's own
  level_db  loudness, RMS of the spoken part in dB below full scale
One line, the path, goes to stdout for every finished job. A failure ends the program with exit code 1 and the reason.

eSpeak's breath and flutter noise comes from one random stream that runs on from call to call, so each job runs in a
fresh process with the stream set to 1: the same job then gives the same samples, whatever was spoken before.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import re
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np

SAMPLE_RATE = 22_050  # Hz, eSpeak NG's own; its voices are made for it
RETRIEVAL = 1  # espeak_AUDIO_OUTPUT: hand the samples to a callback, play nothing
DO_NOT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: report a missing data folder instead of ending the process
UTF8 = 1
RATE, PITCH, RANGE = 1, 3, 4  # espeak_PARAMETER; loudness (2) is scaled here instead, it changes little there
EDGE = 0.06  # seconds of quiet kept before and after the speech
PEAK = 0.97  # highest sample after scaling; a loud style may stay below its level for it
LANGUAGE_SWITCH = re.compile(r"\([a-z][a-z-]*\)")  # in a phoneme string: "(en)" before something read as English


class SpeechError(RuntimeError):
    """A job that eSpeak cannot speak as asked."""


def speak(job: dict[str, Any]) -> np.ndarray:
    """Samples of one job, (samples,) float64 in [-1, 1], silence trimmed, at the job's level.

    Call once per process. Raises SpeechError if the voice or its variant does not exist, or if part of the text would
    be read in another language (kanji and hanja come out as "Chinese letter").
    """
    import espeakng_loader

    data = Path(espeakng_loader.get_data_path())
    if not (data / "voices" / "!v" / job["variant"]).is_file():  # eSpeak would silently use the plain voice
        raise SpeechError(f"{job['path']}: no voice variant {job['variant']!r} in eSpeak's data; expected f1-f5, m1-m8")
    espeak = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = espeak.espeak_Initialize(RETRIEVAL, 0, str(data).encode(), DO_NOT_EXIT)
    if rate != SAMPLE_RATE:
        raise SpeechError(
            f"{job['path']}: eSpeak started with rate {rate}, expected {SAMPLE_RATE}; reinstall its package"
        )
    voice = f"{job['language']}+{job['variant']}"
    if espeak.espeak_SetVoiceByName(voice.encode()) != 0:
        raise SpeechError(f"{job['path']}: eSpeak has no voice {voice!r}")
    phonemes = _phonemes(espeak, job["text"])
    if LANGUAGE_SWITCH.search(phonemes):
        raise SpeechError(
            f"{job['path']}: part of {job['text']!r} would not be read in {job['language']} ({phonemes}); "
            "write Japanese in kana and Korean in hangul"
        )
    for parameter, value in ((RATE, job["rate"]), (PITCH, job["pitch"]), (RANGE, job["range"])):
        espeak.espeak_SetParameter(parameter, int(value), 0)

    parts: list[np.ndarray] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def keep(samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            parts.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())  # eSpeak reuses its buffer
        return 0

    espeak.espeak_SetSynthCallback(keep)
    espeak.espeak_ng_SetRandSeed(ctypes.c_long(1))
    text = job["text"].encode()
    status = espeak.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 0, 0, UTF8, None, None)
    espeak.espeak_Synchronize()
    if status != 0 or not parts:
        raise SpeechError(f"{job['path']}: eSpeak spoke nothing for {job['text']!r} (status {status})")
    return settle(np.concatenate(parts) / 32768.0, float(job["level_db"]))


def settle(wav: np.ndarray, level_db: float) -> np.ndarray:
    """(samples,) -> the spoken part with `EDGE` seconds around it, its RMS at `level_db` unless the peak forbids."""
    loud = np.flatnonzero(np.abs(wav) > 0.01 * np.abs(wav).max())
    if len(loud) == 0:
        raise SpeechError("eSpeak returned silence")
    speech = wav[loud[0] : loud[-1] + 1]
    gain = 10.0 ** (level_db / 20.0) / np.sqrt(np.mean(speech**2))
    gain = min(gain, PEAK / np.abs(speech).max())
    edge = np.zeros(round(EDGE * SAMPLE_RATE))
    return np.concatenate([edge, gain * speech, edge])


def run(jobs_path: Path, folder: Path) -> None:
    """Speak every job of a file, one fresh process each."""
    # Forking skips the interpreter's start: 30 ms a job. Where there is no fork the same code runs, slower.
    can_fork = "fork" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork") if can_fork else multiprocessing.get_context("spawn")
    import espeakng_loader  # a forked job finds it imported and mapped, but not initialised

    ctypes.CDLL(espeakng_loader.get_library_path())
    for line in jobs_path.read_text(encoding="utf-8").splitlines():
        job = json.loads(line)
        process = context.Process(target=_speak_to_file, args=(job, folder))
        process.start()
        process.join()
        if process.exitcode != 0:
            raise SystemExit(f"{job['path']}: speaking failed with exit code {process.exitcode}, see the lines above")
        sys.stdout.write(job["path"] + "\n")
        sys.stdout.flush()


def _speak_to_file(job: dict[str, Any], folder: Path) -> None:
    wav = speak(job)
    path = folder / job["path"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(np.round(wav * 32767.0).astype("<i2").tobytes())


def _phonemes(espeak: ctypes.CDLL, text: str) -> str:
    espeak.espeak_TextToPhonemes.restype = ctypes.c_char_p
    rest = ctypes.c_char_p(text.encode())
    clauses: list[str] = []
    while rest.value is not None:  # eSpeak moves the pointer past one clause per call, to NULL after the last
        clauses.append((espeak.espeak_TextToPhonemes(ctypes.byref(rest), UTF8, 0) or b"").decode())
    return " ".join(clauses)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m tts_kernel.data.demo.speech JOBS.jsonl OUT_FOLDER")
    run(Path(sys.argv[1]), Path(sys.argv[2]))
