"""Files as sources and sinks: CSV, JSON and Parquet under the operator's roots."""
