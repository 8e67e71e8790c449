"""The most memory that something took."""

from __future__ import annotations

import gc
from pathlib import Path

import torch


class Peak:
    """Most memory in use since this was made: what torch has allocated on a GPU, the whole process on Linux."""

    _CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")

    def __init__(self, device: torch.device) -> None:
        self.device, self.known = device, True
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            self._CLEAR.write_text("5", encoding="ascii")  # "reset the peak resident set size", man 5 proc
        except OSError:
            self.known = False

    def gigabytes(self) -> float | None:
        """None where it is not known."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        if not self.known:
            return None
        (line,) = (text for text in self._STATUS.read_text(encoding="ascii").splitlines() if text.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e9
