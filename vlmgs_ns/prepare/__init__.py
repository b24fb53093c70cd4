"""From a video or a folder of photos to a scene with camera poses, by structure from motion (pycolmap) on the CPU."""
