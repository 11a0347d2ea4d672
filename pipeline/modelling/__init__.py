"""What strategies are made of and held to: interface, encoders, registry, cards, contract checks, optimiser."""
