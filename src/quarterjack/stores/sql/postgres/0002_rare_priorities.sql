-- The least urgent of the waiting jobs, where any is less urgent than usual: so far may a claim's order lie
-- behind a job's run time.
CREATE INDEX job_rare_priority ON {schema}.job (priority) WHERE state = 'submitted' AND turn AND priority > 4;
