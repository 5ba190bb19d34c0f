"""The paper's comparisons (Tables 3 and 4, Fig. 3 and 4) on one dataset, cell by cell."""
