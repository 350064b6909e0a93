"""The tools, a file for each group of them."""
