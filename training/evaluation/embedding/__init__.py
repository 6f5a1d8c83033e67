"""Embeddings of a whole data set in one file."""
