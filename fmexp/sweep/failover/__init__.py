"""What happens after a worker died: leases, reclaimed trials, unsettled records."""
