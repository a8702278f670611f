"""Which kind of model pays for one's own images: several kinds, trained on the same images and compared."""
