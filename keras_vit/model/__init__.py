"""The Vision Transformer: its description, its cost, its layers."""
