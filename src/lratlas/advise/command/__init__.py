"""A search whose slices are trained by a program, in any language."""
