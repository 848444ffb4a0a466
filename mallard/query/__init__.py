"""What do the events say?"""
