"""The agent's HTTP edge: requests in, answers and errors out."""
