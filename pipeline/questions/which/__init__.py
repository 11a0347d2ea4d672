"""Question 2: how do the strategies compare?"""
