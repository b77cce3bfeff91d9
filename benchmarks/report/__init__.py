"""Reports from run records: tables and figures for a paper, and one page for a browser."""
