"""Networks that tell real music from generated music."""
