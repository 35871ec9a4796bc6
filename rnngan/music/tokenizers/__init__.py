"""From pieces to tokens and back, one module per encoding."""
