"""The status pages, the metrics and the health check on `metrics_listen`. They read only."""
