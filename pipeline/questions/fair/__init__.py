"""Question 4: are they fair across subgroups?"""
