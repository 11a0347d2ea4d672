"""Question 3: how robust are they to missing modalities?"""
