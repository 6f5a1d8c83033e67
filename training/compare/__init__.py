"""`ladder compare`: methods on the same budget, data order and seeds, evaluated alike, in one table with intervals."""
