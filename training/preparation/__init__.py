"""Rewriting a data set once into small shards that train fast."""
