"""The networks, one folder per family; the mechanisms they share lie beside them."""
