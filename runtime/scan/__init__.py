"""A large collection scored part by part, to Parquet, restartable."""
