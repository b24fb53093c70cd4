"""For all tests and the commands that they start."""

from __future__ import annotations

import os

# nerfstudio's torch.compile starts compiler processes as it is imported, which no test needs: three processor seconds a command.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
