"""Phrases from a command line, checked before anything slow begins."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from vlmgs_ns.system.errors import InputError

LONGEST_PHRASE = 300
"""Characters. CLIP reads 77 tokens and drops the rest; no phrase for an object comes near either."""


def checked_phrases(phrases: Sequence[str], flag: str) -> list[str]:
    """The phrases without spaces around them, in the order given, each once.

    Args:
        phrases: as a user typed them.
        flag: where, for the message: "--select".

    Raises:
        InputError: one is empty, longer than `LONGEST_PHRASE`, or holds control characters such as a line break.
    """
    checked = []
    for given in phrases:
        phrase = given.strip()
        if not phrase:
            raise InputError(f"{flag} {given!r} is empty; describe what to look for in a few words, such as {flag} 'red ball'")
        if len(phrase) > LONGEST_PHRASE:
            raise InputError(
                f"{flag} '{phrase[:40]}…' has {len(phrase)} characters, more than {LONGEST_PHRASE}; "
                "describe what to look for in a few words"
            )
        # Control characters, halves of surrogates, and what means nothing yet; joiners (Cf) belong to emoji and to scripts.
        if any(unicodedata.category(character) in ("Cc", "Cs", "Cn") for character in phrase):
            raise InputError(f"{flag} {phrase!r} holds characters that cannot be read, such as a line break; type it again")
        checked.append(phrase)
    return list(dict.fromkeys(checked))


def file_stem(phrases: Sequence[str], limit: int = 80) -> str:
    """A name for a file about these phrases, without suffix: "red-ball+green-ring". At most `limit` bytes, in any script."""
    words = "+".join(re.sub(r"\W+", "-", phrase.lower()).strip("-_") or "phrase" for phrase in phrases)
    if len(words.encode()) <= limit:
        return words
    told_apart = hashlib.sha256("\n".join(phrases).encode()).hexdigest()[:8]
    return words.encode()[: limit - 9].decode(errors="ignore") + "-" + told_apart
