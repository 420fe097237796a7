"""``workers="process"``: batches made by other processes, in memory that the caller shares with them."""
