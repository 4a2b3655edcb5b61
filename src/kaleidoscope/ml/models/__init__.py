"""The networks of the engine and what stands around them: sampling, decoding, alignment."""
