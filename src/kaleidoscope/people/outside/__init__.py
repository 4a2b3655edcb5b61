"""What people reads and writes outside of the database."""
