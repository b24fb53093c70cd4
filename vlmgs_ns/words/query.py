"""What is looked for: phrases, the phrases that they have to beat, and a threshold; checked once, where they are typed.

Nothing heavy is imported here, so that a command line can read its limits and defaults from this module.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from vlmgs_ns.system.errors import InputError

THRESHOLD = 0.5
"""Relevancy of a tie with the hardest negative."""
MOST_PHRASES = 32
"""In one query; each is a channel of every render."""
LONGEST_PHRASE = 300
"""Characters. CLIP reads 77 tokens and drops the rest; no phrase for an object comes near either."""


Parts = Literal["clearest", "all"]
"""Of what a phrase selects: the connected part that photos show most clearly, or all of it."""


class Fields(NamedTuple):
    """Names under which a user knows the parts of a query, for messages."""

    phrases: str = "phrase"
    negatives: str = "negatives"
    threshold: str = "threshold"


class At(NamedTuple):
    """A place on a photo."""

    photo: str
    place: tuple[float, float] | tuple[float, float, float, float]
    """x, y of a point, or left, top, right, bottom of a box, in pixels from the top left."""


@dataclass(frozen=True)
class Query:
    """Phrases to look for in a scene. `make_query` makes one from what a user typed."""

    phrases: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    """Phrases that every find has to beat, beside the scene's own negatives."""
    threshold: float = THRESHOLD
    """Relevancy above which a pixel or a Gaussian belongs to a phrase, in [0, 1)."""
    scene_negatives: bool = True
    """Whether the scene's own negatives count as well."""


def make_query(
    phrases: Sequence[str],
    negatives: Sequence[str] = (),
    threshold: float = THRESHOLD,
    *,
    scene_negatives: bool = True,
    most: int = MOST_PHRASES,
    fields: Fields = Fields(),  # noqa: B008 (immutable)
) -> Query:
    """Return a checked query: phrases without spaces around them, each once.

    Args:
        phrases, negatives, threshold, scene_negatives: as `Query` has them.
        most: phrases allowed at once.
        fields: what the parts are called where they were typed: ``Fields("--select", "--negative", "--threshold")``.

    Raises:
        InputError: a phrase that cannot be used, too many of them, one that is a negative too, or a threshold out of range.

    Example:
        >>> make_query([" red ball "], ["floor"]).phrases
        ('red ball',)
    """
    wanted, others = checked_phrases(phrases, fields.phrases), checked_phrases(negatives, fields.negatives)
    if len(wanted) > most:
        raise InputError(f"{len(wanted)} phrases; give at most {most} at once, more are too many for one picture")
    for phrase in wanted:
        if phrase in others:
            raise InputError(
                f"{phrase!r} is in {fields.phrases} and in {fields.negatives}, and cannot beat itself; leave one out"
            )
    if not 0 <= threshold < 1:
        raise InputError(f"{fields.threshold} {threshold:g} is out of range; give a number from 0 to below 1, such as 0.5")
    return Query(tuple(wanted), tuple(others), threshold, scene_negatives)


def checked_phrases(phrases: Sequence[str], field: str) -> list[str]:
    """Return the phrases without spaces around them, in the order given, each once.

    Args:
        phrases: as a user typed them.
        field: where, for the message: "--select".

    Raises:
        InputError: one is empty, longer than `LONGEST_PHRASE`, or holds control characters such as a line break.
    """
    checked = []
    for given in phrases:
        phrase = given.strip()
        if not phrase:
            raise InputError(f"{field} {given!r} is empty; describe what to look for in a few words, such as {field} 'red ball'")
        if len(phrase) > LONGEST_PHRASE:
            raise InputError(
                f"{field} '{phrase[:40]}…' has {len(phrase)} characters, more than {LONGEST_PHRASE}; "
                "describe what to look for in a few words"
            )
        # Control characters, halves of surrogates, and unassigned ones; joiners (Cf) belong to emoji and to scripts.
        if any(unicodedata.category(character) in ("Cc", "Cs", "Cn") for character in phrase):
            raise InputError(f"{field} {phrase!r} holds characters that cannot be read, such as a line break; type it again")
        checked.append(phrase)
    return list(dict.fromkeys(checked))


def apart(relevancy: float, threshold: float) -> str:
    """Return a relevancy in as many digits, two or more, as tell it from a threshold; "exactly 0.50" for a tie."""
    for digits in range(2, 7):
        if round(relevancy, digits) != round(threshold, digits):
            return f"{relevancy:.{digits}f}"
    return f"exactly {threshold:.2f}"


def parse_at(text: str) -> At:
    """Return the place of ``PHOTO:x,y`` or ``PHOTO:left,top,right,bottom``. Raises an InputError for anything else."""
    photo, _, numbers = text.rpartition(":")
    parts = re.findall(r"\d+(?:\.\d+)?", numbers)
    place = tuple(float(part) for part in parts)
    if not photo or ",".join(parts) != numbers.replace(" ", "") or len(place) not in (2, 4):
        raise InputError(f"--at {text!r} is not a place on a photo; give PHOTO:x,y or PHOTO:left,top,right,bottom, in pixels")
    if len(place) == 4 and not (place[0] < place[2] and place[1] < place[3]):
        raise InputError(f"--at {text!r} is an empty box; give left, top, right and bottom in this order")
    return At(photo, (place[0], place[1]) if len(place) == 2 else (place[0], place[1], place[2], place[3]))


def split_phrases(text: str) -> list[str]:
    """Return what stands between semicolons, with single spaces; empty parts are left out."""
    phrases = [" ".join(part.split()) for part in text.split(";")]
    return [phrase for phrase in phrases if phrase]


def parse_prompt(text: str | None) -> list[str]:
    """Return the phrases of ``--prompt``, in their order, each once. None or "": none.

    Raises:
        InputError: nothing but semicolons and spaces, too many phrases, or one that cannot be used.
    """
    if not text:
        return []
    phrases = split_phrases(text)
    if not phrases:
        raise InputError(f'--prompt {text[:40]!r} names nothing; give phrases with semicolons between: "red ball; wooden table"')
    return list(make_query(phrases, fields=Fields("--prompt")).phrases)


def file_stem(phrases: Sequence[str], limit: int = 80) -> str:
    """Return a name for a file about these phrases, without suffix: "red-ball+green-ring". At most `limit` bytes."""
    words = "+".join(re.sub(r"\W+", "-", phrase.lower()).strip("-_") or "phrase" for phrase in phrases)
    if len(words.encode()) <= limit:
        return words
    digest = hashlib.sha256("\n".join(phrases).encode()).hexdigest()[:8]
    return words.encode()[: limit - 9].decode(errors="ignore") + "-" + digest
