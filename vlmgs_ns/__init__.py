"""vlm-fastgs: a nerfstudio method plugin (see README.md)."""
