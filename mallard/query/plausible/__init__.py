"""Plausible's Stats API v2 in its own words: what is asked, and how it is answered."""
