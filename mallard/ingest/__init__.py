"""May this event in, and what do we know about it?"""
