"""Ingest at the terminal: a folder is taken in over HTTP, jobs and inboxes are looked at."""
