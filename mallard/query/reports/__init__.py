"""A file each: what is asked, and the statement that answers it."""
