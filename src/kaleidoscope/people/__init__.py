"""Faces, embeddings, persons: who is in which photo."""
