"""Symbolic music: pieces, files, tokens, sound and pictures. No torch here."""
