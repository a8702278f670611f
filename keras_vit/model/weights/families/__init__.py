"""One file per family: whose tensor names they are, and how they become those of `ViT`.

Each module has `FAMILY`, `recognises(checkpoint)` and `read(checkpoint, arguments)`.
"""
