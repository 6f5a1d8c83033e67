"""Where images come from: folders, Parquet files, WebDataset shards, Hub data sets, and mixtures of them."""
