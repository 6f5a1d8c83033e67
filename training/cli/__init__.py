"""The `ladder` command: words in, one line out."""
