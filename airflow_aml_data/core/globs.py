"""v1's globs: ``*``, ``?`` and ``[12]`` within one folder, ``**`` over folders; case counts, dot-files match.

Source: semantics section 4, observed with the SDK v1.
"""

from __future__ import annotations

import re

_WILDCARD = re.compile(r"[*?\[]")


def is_glob(path: str) -> bool:
    """Whether ``path`` holds a wildcard; a file or folder of exactly that name still takes precedence."""
    return _WILDCARD.search(path) is not None


def literal_folder(pattern: str) -> str:
    """The folder before the first wildcard, ``""`` for the root: what has to be listed, and what v1 strips.

    >>> literal_folder("animals/cat/*.jpg")
    'animals/cat'
    """
    found = _WILDCARD.search(pattern)
    head = pattern[: found.start()] if found else pattern
    return head.rpartition("/")[0]


def stripped_folder(pattern: str) -> str:
    """The folder that a dataset of this one glob leaves out of its files' paths: up to the last ``/`` before the first ``*``.

    Without a ``*``, or with another wildcard before it, nothing is left out. Source: v1, semantics section 4.

    >>> stripped_folder("animals/cat/*.jpg"), stripped_folder("animals/cat/?.jpg")
    ('animals/cat', '')
    """
    folder = pattern.partition("*")[0].rpartition("/")[0] if "*" in pattern else ""
    return "" if is_glob(folder) else folder


def compile_glob(pattern: str) -> re.Pattern[str]:
    """A pattern that matches whole paths below the root.

    >>> bool(compile_glob("**/*.jpg").fullmatch("1.jpg")), bool(compile_glob("*.jpg").fullmatch("dog/1.jpg"))
    (True, False)
    """
    expression = ""
    segments = pattern.split("/")
    for position, segment in enumerate(segments):
        following = segments[position + 1 : position + 2]
        if segment != "**":
            expression += _segment(segment) + ("/" if following else "")
        elif not following:
            expression += "(?!)"  # v1: "**" at the end is not found
        elif following != ["**"]:
            expression += "(?:[^/]+/)*"
    return re.compile(expression, re.DOTALL)


def _segment(segment: str) -> str:
    """fnmatch's rules, but no wildcard matches a ``/``."""
    chunks, position = [""], 0
    while position < len(segment):
        char = segment[position]
        position += 1
        if char == "*":
            chunks.append("")
        elif char == "?":
            chunks[-1] += "[^/]"
        elif char == "[" and (end := segment.find("]", position + 1 + segment.startswith("!", position))) > 0:
            chunks[-1] += _one_of(segment[position:end])
            position = end + 1
        else:
            chunks[-1] += re.escape(char)
    first, *after_stars = chunks
    # the earliest place for a chunk is as good as any, but for the last: so no bad name costs more than a good one
    for each in after_stars[:-1]:
        first += f"(?>[^/]*?{each})"
    return first + (f"[^/]*{after_stars[-1]}" if after_stars else "")


def _one_of(inner: str) -> str:
    """The inside of a ``[...]``: single characters and ranges, after a ``!`` those it does not match."""
    negated = inner.startswith("!")
    inner = inner.removeprefix("!")
    parts, position = "", 0
    while position < len(inner):
        first, last = inner[position], inner[position]
        if inner[position + 1 : position + 2] == "-" and position + 2 < len(inner):
            last = inner[position + 2]
            position += 2
        position += 1
        if first <= last:
            parts += f"{re.escape(first)}-{re.escape(last)}"
    if not parts:  # such as [z-a]
        return "[^/]" if negated else "(?!)"
    return f"(?!/)[{'^' if negated else ''}{parts}]"
