"""Exact, endless batches from map-style data sets and streams, in the process or in workers."""
