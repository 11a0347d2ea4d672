"""docs/strategies.md is what the cards say."""

from pipeline.strategies.cards import COMMAND, DOCUMENT, Card, read_card, render
from pipeline.strategies.registry import names


def test_the_document_is_fresh(root):
    written = (root / DOCUMENT).read_text(encoding="utf-8")
    assert written == render([read_card(name) for name in names()]), f"{DOCUMENT} is stale: run `{COMMAND}`"


def test_cards_stand_in_groups_with_what_they_declare():
    entries = {"Paper": "p", "Idea": "i", "Missing image": "m", "Changed": "c"}
    kinds = {"b": ("cxr", "ehr"), "a": ("cxr", "ehr"), "z": ("ehr",), "y": ("ehr", "metadata", "presence")}
    text = render([Card(name, f"of {name}", entries, sees, "native", "joint") for name, sees in kinds.items()])
    places = [
        text.index(f"\n{line}\n") for line in ("## One modality", "### z", "### y", "## Fusion", "### a", "### b")
    ]
    assert places == sorted(places)
    assert "| [y](#y) | control | ehr, presence, metadata | – | joint |" in text
    assert "### a\n\nof a\n\n**Paper.** p\n\n**Idea.** i\n\n**Missing image.** m\n\n**Changed.** c\n" in text
