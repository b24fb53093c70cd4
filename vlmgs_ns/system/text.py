"""Text from outside that people and terminals read: names of files, replies of servers, messages of libraries."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return the text with a space for all that a terminal would obey or could not write: control characters, lone surrogates."""
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)


def one_line(text: str) -> str:
    """Return the text printable and on one line, its spaces joined."""
    return " ".join(printable(text).split())


def format_size(size: int) -> str:
    """Bytes in the unit that suits them, as 1000s: 3.9 MB."""
    if size < 1000:
        return f"{size} bytes"
    power = min((len(str(size)) - 1) // 3, 4)
    value = size / 1000**power
    return f"{value:.{0 if value >= 100 else 1}f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"
