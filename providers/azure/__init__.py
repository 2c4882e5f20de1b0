"""Azure Speech by the vendor's SDK: recognition, synthesis, voices."""
