"""What the library asks of the disk."""
