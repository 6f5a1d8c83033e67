"""Writing the online backbone in the formats of other libraries."""
