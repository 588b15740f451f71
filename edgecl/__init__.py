"""edgecl: continual learning on small devices, sparse so that training itself is cheap."""

__version__ = "0.1.0"
