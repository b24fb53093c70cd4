"""Which Gaussians are born and which die (FastGS, arXiv 2511.04283)."""
