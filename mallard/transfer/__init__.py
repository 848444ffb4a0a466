"""How does data move in bulk?"""
