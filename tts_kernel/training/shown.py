"""What a validation leaves to be seen and heard, files in the run's `samples/`, as TensorBoard shows them.

    samples/step_<step>_<name>.png  .wav      one validation's, by name
    gen/mel   all/attn   gen/audio_<name>     in TensorBoard, as MeloTTS calls them

The files go into the event file as they are: nothing is drawn or encoded twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SAMPLES = "samples"  # in the run's folder
_TAGS = {"mels.png": "gen/mel", "alignment.png": "all/attn"}


def sample_file(folder: Path, step: int, name: str) -> Path:
    """Where a validation of the run in `folder` leaves a sample; `name` has its ending."""
    return folder / SAMPLES / f"step_{step:06d}_{name}"


def step_of(sample: Path) -> int:
    """The step that a sample is of."""
    return int(sample.name.split("_")[1])


def samples_of(folder: Path, step: int) -> dict[str, Path]:
    """The pictures and sounds of one step, by name with ending, in order."""
    own = sample_file(folder, step, "")
    found = sorted(path for path in own.parent.glob(f"{own.name}*") if path.suffix in (".png", ".wav"))
    return {path.name.removeprefix(own.name): path for path in found}


def summaries(folder: Path, step: int) -> Iterator[Any]:
    """A Summary of TensorBoard's for each picture and sound of a step."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    for name, path in samples_of(folder, step).items():
        if path.suffix == ".png":
            tag = _TAGS.get(name, f"gen/{name.removesuffix('.png')}")
            yield Summary(value=[Summary.Value(tag=tag, image=_picture(path, Summary))])
        else:
            yield Summary(
                value=[Summary.Value(tag=f"gen/audio_{name.removesuffix('.wav')}", audio=_sound(path, Summary))]
            )


def _picture(path: Path, summary: Any) -> Any:
    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])  # of the header, which a PNG begins with
    return summary.Image(width=width, height=height, colorspace=4, encoded_image_string=content)


def _sound(path: Path, summary: Any) -> Any:
    import soundfile

    facts = soundfile.info(str(path))
    return summary.Audio(
        sample_rate=facts.samplerate,
        num_channels=facts.channels,
        length_frames=facts.frames,
        encoded_audio_string=path.read_bytes(),
        content_type="audio/wav",
    )
