"""The engine: arrays in, arrays out. It knows no database and no messages."""
