"""A run that ends while its server has not answered; started as a process by test_openai_backend.py with the server's address."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.guidance.small_world import SmallScene
from vlmgs_ns.guidance.backends.openai import OpenAIBackend
from vlmgs_ns.guidance.config import GuidanceConfig
from vlmgs_ns.guidance.steering import Steering

if __name__ == "__main__":
    config = GuidanceConfig()
    config.detail.start, config.detail.end, config.detail.every = 0, 10, 5
    steering = Steering(config, OpenAIBackend(sys.argv[1], "a-model", timeout=600.0), None, Path(sys.argv[2]))
    steering.step(0, SmallScene(), {})
    sys.stdin.readline()  # until the server has all requests
    steering.close()
