"""Question 1: when does fusion beat the best single modality?"""
