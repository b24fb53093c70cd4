"""A feature field at the Gaussians that answers to words (FMGS, arXiv 2401.01970)."""
