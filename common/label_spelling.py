"""Labels that differ in spelling alone, and labels that look like the lack of one."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

MAX_EXAMPLES = 5
_UNKNOWN = re.compile(
    r"(unk(nown)?s?|others?|oos|out of (scope|domain|gallery|set)|ood|none( of (these|the above|them))?|"
    r"no (match|label|class|one)|nobody|n ?a|null|nan|unlabell?ed|distract(or|er)s?|back ?ground|"
    r"impostors?|strangers?|junk|misc(ellaneous)?|garbage|rejects?)"
)


def normalise_text(text: str) -> str:
    """Text in Unicode's composed form (NFC, UAX 15), in which equal looks are equal code points."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def fold_label(label: str) -> str:
    """A label without what spelling alone adds: composed (NFC), caseless, single blanks between words, and
    no invisible characters (Unicode's category Cf: zero-width spaces, byte order marks, soft hyphens)."""
    if not label.isascii():
        label = "".join(character for character in label if unicodedata.category(character) != "Cf")
    return normalise_text(" ".join(normalise_text(label).casefold().split()))


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: it is empty, or of blanks and invisible characters alone."""
    return all(character.isspace() or unicodedata.category(character) == "Cf" for character in text)


def group_spellings(labels: Iterable[str]) -> list[list[str]]:
    """The labels that are equal once folded, in groups of two or more; sorted."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        spellings[fold_label(label)].add(label)
    return sorted(sorted(group) for group in spellings.values() if len(group) > 1)


def describe_spellings(labels: Iterable[str], cure: str) -> str | None:
    """A sentence that names labels which differ in spelling alone, with what to do; None where none do."""
    groups = group_spellings(labels)
    if not groups:
        return None
    examples = "; ".join(" = ".join(ascii(label) for label in group[:3]) for group in groups[:MAX_EXAMPLES])
    more = f" and {len(groups) - MAX_EXAMPLES} more" if len(groups) > MAX_EXAMPLES else ""
    return (
        f"{sum(map(len, groups))} labels differ from another one in case, blanks, invisible characters or "
        f"Unicode form alone, and are classes of their own: {examples}{more}. {cure}"
    )


def find_unknown_labels(labels: Iterable[str]) -> list[str]:
    """The labels that look like the lack of one: unknown, other, oos, distractor, -1; sorted."""
    return sorted({label for label in labels if _is_unknown(fold_label(label))})


def _is_unknown(folded: str) -> bool:
    words = re.sub(r"[\W_]+", " ", folded).strip()
    return folded == "-1" or _UNKNOWN.fullmatch(words) is not None


def describe_unknown_labels(labels: Iterable[str], cure: str) -> str | None:
    """A sentence that asks about such labels; None where there are none."""
    named = find_unknown_labels(labels)
    if not named:
        return None
    shown = ", ".join(f"'{label}'" for label in named[:MAX_EXAMPLES])
    return f"Is {shown} an identity? It is taken as one class, whose items should match each other. {cure}"


def fold_labels(labels: Sequence[str], spellings: dict[str, str]) -> list[str]:
    """Labels in one spelling each: the one already in ``spellings``, else the most frequent one here.

    Args:
        spellings: the spelling of each folded label; those of labels that it lacks are added.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for label in labels:
        counts[fold_label(label)][label] += 1
    for folded, spelt in counts.items():
        spellings.setdefault(folded, min(spelt, key=lambda label: (-spelt[label], label)))
    return [spellings[fold_label(label)] for label in labels]
