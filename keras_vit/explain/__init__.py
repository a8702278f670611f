"""What a ViT looks at: attention, rollout, gradient-weighted attention, and whether to believe them."""
