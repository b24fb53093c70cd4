"""What nerfstudio sees: model, pipeline, trainer, data manager."""
