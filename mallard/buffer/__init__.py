"""What is accepted but not yet in Parquet?"""
