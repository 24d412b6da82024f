"""Report: records in, tables out."""
