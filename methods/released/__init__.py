"""The files that the released codes of CSP, CoOp, DFSP, Troika, MSCI and CAILA save, read and written."""
