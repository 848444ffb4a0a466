"""Which events are in Parquet, and in which files?"""
