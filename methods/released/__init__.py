"""The files that the released codes of CSP, CoOp, DFSP, Troika and MSCI save, read and written."""
