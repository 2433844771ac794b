"""From jobs to results: the scheduler, executors, workers, and what they do with a job."""
