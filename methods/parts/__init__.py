"""Parts of methods: what several methods share, and what of one is long enough for a file (dfsp_fusion, refinement)."""
