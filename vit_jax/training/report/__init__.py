"""What a run tells: metrics, progress, times, pictures."""
