"""The decisions about identity: pure, no I/O."""
