"""HTML pages: `kit` is what all pages share; each page has one template and one module, such as `run`."""
