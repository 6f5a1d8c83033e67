"""Finding, checking and loading models, and what is computed from the features of their stages."""
