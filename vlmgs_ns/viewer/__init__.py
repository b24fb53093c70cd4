"""What our runs offer in nerfstudio's viewer: finding with words, selecting, hiding, exporting."""
