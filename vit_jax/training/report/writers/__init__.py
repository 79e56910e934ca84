"""Services that follow a run's numbers, beside its own `metrics.jsonl`: one file each, chosen by `log.writers`."""
