"""Search whose segments are trained by a program, in any language."""
