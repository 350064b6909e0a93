"""Keys in files of the data directory, and what is kept unreadable with them."""
