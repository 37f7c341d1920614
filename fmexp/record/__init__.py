"""The record of a run: spool, recorder process, MLflow store."""
