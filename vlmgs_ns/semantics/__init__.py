"""A semantic feature field at the Gaussians, queried with text (FMGS, arXiv 2401.01970)."""
