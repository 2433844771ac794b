"""Execution of jobs: the scheduler, executors, workers, and the code that performs a job."""
