"""Any Hydra application, swept and recorded."""
