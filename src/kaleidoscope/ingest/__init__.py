"""How photos get in: folder jobs, their batches, and the publishing of what is to be recognised."""
