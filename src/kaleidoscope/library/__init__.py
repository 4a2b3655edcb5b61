"""What there is: the ledger of media, one row a file, with its status and its attempts."""
