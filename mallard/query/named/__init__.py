"""Which reports are there, what do they take, and what are their rows?"""
