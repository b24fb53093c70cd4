"""``vlmgs cache``: see and remove the feature maps of a scene."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass
class Cache:
    """List the feature maps kept for a scene: encoder, photos, size; or remove them."""

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Folder of the scene, as given to ns-train --data."""
    clear: bool = False
    """Remove them all. They are made again when they are next needed."""

    def run(self) -> None:
        """List, or with ``clear`` remove."""
        from vlmgs_ns.semantics.cache import caches_of, format_size
        from vlmgs_ns.system.progress import say

        caches = caches_of(self.data)
        if self.clear:
            freed = [(cache.folder, cache.clear()) for cache in caches]
            for folder, size in freed:
                say(f"Removed {format_size(size)} from {folder}")
            if not freed:
                say(f"No feature maps of {self.data} are cached.")
            return
        filled = [cache for cache in caches if cache.entries()]
        for cache in filled:
            say(str(cache.folder))
            for entry in cache.entries():
                say(f"  {entry.photos} photos, {format_size(entry.size)}: {entry.key}")
        if not filled:
            say(f"No feature maps of {self.data} are cached.")
            return
        say(f"{format_size(sum(cache.size() for cache in filled))} in all; remove them with")
        say(f"  vlmgs cache {shlex.quote(str(self.data))} --clear")
