"""Texts that show a difference between a pipeline and its graph: the pipeline's own words, changed in every way that
one of its steps can see."""

import random
import unicodedata
from collections.abc import Iterator

from sklearn.feature_extraction.text import CountVectorizer

from .odd_texts import ODD_TEXTS

# Entries of each vocabulary that are tried.
ENTRIES = 30
MIXTURES = 150
# Where a vectorizer has no stop words, what others take for some.
STOP_WORDS = ["the", "of", "a", "I", "not"]
# All that Python takes for white space, and what only looks like it.
WHITE = ["\t", "\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x1f", "\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u202f", "\u205f",
         "\u3000", "  ", " \n ", "\u200b", "\u2060", "\ufeff"]
BETWEEN = [".", ",", "-", "_", "'", "’", "·", "/", " . ", " x ", " 7 ", "\u00ad", "\u0301"]
# Letters whose case depends on more than themselves, or that lower to a letter of another block.
LETTERS = ["İ", "I", "ı", "i\u0307", "Σ", "ΑΣ", "ΑΣ.", "ΑΣ'Α", "ΑΣ Α", "Α\u0301Σ", "ʰΣ", "ΣΣ", "ς", "ẞ", "\u212a", "\u212b", "\u2126",
           "ǅ", "ﬁ", "Ꭰ", "Ა", "𐐀"]


def probe_texts(vectorizers: list[CountVectorizer]) -> dict[str, str]:
    """Texts, and of each which change it shows."""
    chance = random.Random(3)
    found: dict[str, str] = {}
    words: list[str] = []
    for vectorizer in vectorizers:
        entries = spread(sorted(vectorizer.vocabulary_), ENTRIES)
        words += [word for entry in entries for word in entry.split()]
        stop_words = sorted((vectorizer.get_stop_words() if vectorizer.analyzer == "word" else None) or STOP_WORDS)
        for entry, other in zip(entries, entries[1:] + entries[:1]):
            for kind, text in variants(entry, other, chance.sample(stop_words, min(3, len(stop_words)))):
                found.setdefault(text, kind)
    words = words or ["a"]
    for _ in range(MIXTURES):
        found.setdefault(" ".join(chance.choices([*words, *words, *STOP_WORDS], k=chance.randint(1, 60))), "words together")
    for text in ("a" * 5_000, " ".join(words * 40)[:20_000], "?", ".", "1", "_"):
        found.setdefault(text, "very long and very short")
    for text in ODD_TEXTS:
        found.setdefault(text, "many scripts")
    return found


def spread(entries: list[str], most: int) -> list[str]:
    """Some of the entries of each length in words, evenly over the alphabet."""
    by_length: dict[int, list[str]] = {}
    for entry in entries:
        by_length.setdefault(entry.count(" "), []).append(entry)
    each = max(1, most // max(1, len(by_length)))
    return [entry for same in by_length.values() for entry in same[::max(1, -(-len(same) // each))]]


def variants(entry: str, other: str, stop_words: list[str]) -> Iterator[tuple[str, str]]:
    """The entry of a vocabulary, changed; and what the change is."""
    upper = entry.upper()
    for text in (entry, upper, entry.title(), entry.swapcase(), entry.capitalize()):
        yield "upper and lower case", text
    for text in (upper.replace("I", "İ"), f"İ{entry}", f"{upper}İ", f"{upper}Σ", f"{upper}Σ{upper}", f"{entry}Σ.", f"{upper}Σ'{other}",
                 entry.replace("k", "\u212a"), entry.replace("ss", "ẞ")):
        yield "İ, Σ and their like", text
    decomposed = unicodedata.normalize("NFD", entry)
    for text in (decomposed, unicodedata.normalize("NFKC", entry), "".join(c for c in decomposed if not unicodedata.combining(c)),
                 f"{entry[:1]}\u0301{entry[1:]}", f"{entry[:2]}é{entry[2:]}", f"{entry}\u0307"):
        yield "accents", text
    for text in (*(f"{entry}{sign}{other}" for sign in BETWEEN), f"({entry})", f"“{entry}”", f"_{entry}_", f"{entry}{other}", f"{entry}!"):
        yield "punctuation", text
    for white in WHITE:
        yield "white space", f"{white}{entry.replace(' ', white)}{white}{other}{white}"
    for text in (f"{entry}1", f"1{entry}", f"{entry} 1 {other}", f"{entry}²", f"٣{entry}"):
        yield "digits", text
    parts = entry.split(" ")
    for word in stop_words:
        for text in (f" {word} ".join(parts), f" {word} {word.upper()} ".join([*parts, other]), f"{word} {entry} {word}", f"{word}{entry}"):
            yield "stop words", text
    for text in (" ".join(reversed(parts)), f"{entry} {entry}", f"{entry} " * 30, f"{entry} {other} {entry}", entry[:-1], entry[:1]):
        yield "repeated and cut words", text
    for letter in LETTERS:
        yield "İ, Σ and their like", f"{letter} {entry}{letter} {other}"
