"""Training in a process of its own, or in several."""

from __future__ import annotations

from typing import Literal

Launch = Literal["inline", "detached"]
