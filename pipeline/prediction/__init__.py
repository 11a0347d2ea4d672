"""A trained run's answers for new stays: the run as it is filed, the stays as it saw its own, what it says of them."""
