"""What ingest asks of the disk."""
