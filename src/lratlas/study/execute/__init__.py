"""From jobs to results: the driver, its workers and where they run, and what they do with a job."""
