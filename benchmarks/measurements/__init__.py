"""What is measured: one promise a file. Each is a function from a `Bench` to rows of the report."""
