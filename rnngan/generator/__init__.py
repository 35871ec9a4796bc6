"""Networks that write music, and how to draw from them."""
