"""The known word that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """At most ``count`` of ``known`` that resemble ``word``, best first: alike in spelling, then one inside the other.

    Case does not matter; `MNIST`, `minst` and `fashion` all find something.
    """
    import difflib

    folded: dict[str, str] = {}
    for each in known:
        folded.setdefault(each.lower(), each)
    word = word.lower()
    alike = difflib.get_close_matches(word, folded, n=count, cutoff=0.6)
    inside = [each for each in folded if len(word) > 2 and len(each) > 2 and (word in each or each in word)]
    return [folded[each] for each in list(dict.fromkeys(alike + inside))[:count]]


def hint(word: str, known: Iterable[str]) -> str:
    """``did you mean a or b?``, or ``known: a, b, c`` where nothing is near."""
    known = sorted(known)
    near = nearest(word, known, 2)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(known)}" if known else "none is known"
