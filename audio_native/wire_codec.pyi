"""Nothing for Python; the C interface is in the .pxd."""
