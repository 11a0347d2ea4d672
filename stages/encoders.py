"""Which frozen encoders are asked for, and what their cards say: alone in depending on the folder of all cards."""

import dataclasses
from pathlib import Path

from pipeline import files
from pipeline.embedding.card import read_card
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Writes data/embeddings/cards.json: {encoder: its card}."""
    (encoders,) = read("embedding.encoders")
    cards = {name: dataclasses.asdict(read_card(name)) for name in encoders}
    files.write_json(cards, Path("data/embeddings/cards.json"), digits=9)


if __name__ == "__main__":
    main()
