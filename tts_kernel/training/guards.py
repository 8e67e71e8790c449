"""What keeps a bad update from a weight, and a bad run from going on unseen."""

from __future__ import annotations

from typing import Literal

OnSpike = Literal["ignore", "warn", "rollback"]
OnOutOfMemory = Literal["stop", "split"]
