"""F3: a snapshot as a file for other runtimes."""
