"""Decisions of the library: about the ledger (`ledger`) and about dates (`dates`)."""
