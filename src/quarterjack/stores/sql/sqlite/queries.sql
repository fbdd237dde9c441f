-- What the SQLite store asks most. {columns} stands for the columns of a job, {values} for as many
-- rows of parameters as a call has; parameters have names where one is used twice.

-- name: first_run_at
SELECT min(run_at_ns) FROM qj_jobs WHERE place = 2

-- name: delayed: those whose time comes first
SELECT run_at_ns, queue, lane FROM qj_jobs WHERE place = 2 AND run_at_ns > ? ORDER BY run_at_ns LIMIT ?

-- name: due: those whose time has come, and the keys of those who take turns
SELECT seq, CASE WHEN serial = 1 THEN overlap_key END FROM qj_jobs
WHERE place = 2 AND run_at_ns <= ? ORDER BY run_at_ns LIMIT ?

-- name: promote: they may be claimed; those who take turns stand in line
UPDATE qj_jobs SET place = CASE WHEN serial = 1 AND overlap_key IS NOT NULL THEN 3 ELSE 1 END
WHERE seq IN (SELECT value FROM json_each(?))

-- name: first_lease_end
SELECT min(lease_until_ns) FROM qj_jobs WHERE lease_until_ns IS NOT NULL

-- name: expired
SELECT id FROM qj_jobs WHERE lease_until_ns IS NOT NULL AND lease_until_ns <= ? ORDER BY lease_until_ns LIMIT ?

-- name: leased_by: what an owner holds that has not begun
SELECT id, attempt, owner FROM qj_jobs
WHERE lease_until_ns IS NOT NULL AND owner = ? AND state = 'scheduled' ORDER BY seq

-- name: lanes: those in which somebody waits, each found by one step in the index
WITH RECURSIVE found (lane) AS (
    SELECT min(lane) FROM qj_jobs WHERE place = 1 AND queue = :queue
    UNION ALL
    SELECT (SELECT min(lane) FROM qj_jobs WHERE place = 1 AND queue = :queue AND lane > found.lane)
    FROM found WHERE found.lane IS NOT NULL
)
SELECT lane FROM found WHERE lane IS NOT NULL

-- name: ready_in_lane: the most urgent of one lane
SELECT seq, {columns} FROM qj_jobs WHERE place = 1 AND queue = ? AND lane = ? ORDER BY order_at_ns, seq LIMIT ?

-- name: ready_in_lanes: the most urgent of several; of each lane no more are looked at than are wanted
SELECT seq, {columns} FROM qj_jobs WHERE seq IN (
    SELECT near.seq FROM json_each(:lanes) AS wanted, qj_jobs AS near
    WHERE near.seq IN (
        SELECT seq FROM qj_jobs WHERE place = 1 AND queue = :queue AND lane = wanted.value
        ORDER BY order_at_ns, seq LIMIT :most
    )
)
ORDER BY order_at_ns, seq LIMIT :most

-- name: lease
UPDATE qj_jobs SET
    state = 'scheduled', attempt = attempt + 1, owner = :owner, scheduled_at_ns = :now, lease_until_ns = :until,
    order_at_ns = 0, started_at_ns = NULL, running_at_ns = NULL, reason = NULL, place = 0
WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: waited_lines: of these keys, those that serial jobs wait for
SELECT line.value FROM json_each(?) AS line
WHERE EXISTS (SELECT 1 FROM qj_jobs WHERE overlap_key = line.value AND serial = 1 AND place = 1)
   OR EXISTS (SELECT 1 FROM qj_jobs WHERE overlap_key = line.value AND place = 3)

-- name: line_is_taken: whether somebody has the turn of a key
SELECT EXISTS (
    SELECT 1 FROM qj_jobs
    WHERE overlap_key = ? AND serial = 1 AND (zombie = 1 OR state IN ('scheduled', 'started', 'running'))
)

-- name: line_waits
UPDATE qj_jobs SET place = 3 WHERE overlap_key = ? AND serial = 1 AND place = 1

-- name: line_goes_on: the first of each lane may be claimed; those of backfills when no other waits
WITH RECURSIVE line (late) AS (
    SELECT min(origin_trigger IS 'backfill') FROM qj_jobs WHERE place = 3 AND overlap_key = :key
),
found (lane) AS (
    SELECT min(lane) FROM qj_jobs
    WHERE place = 3 AND overlap_key = :key AND (origin_trigger IS 'backfill') = (SELECT late FROM line)
    UNION ALL
    SELECT (
        SELECT min(lane) FROM qj_jobs
        WHERE place = 3 AND overlap_key = :key AND (origin_trigger IS 'backfill') = (SELECT late FROM line)
          AND lane > found.lane
    )
    FROM found WHERE found.lane IS NOT NULL
)
UPDATE qj_jobs SET place = 1 WHERE seq IN (
    SELECT (
        SELECT seq FROM qj_jobs
        WHERE place = 3 AND overlap_key = :key AND (origin_trigger IS 'backfill') = (SELECT late FROM line)
          AND lane = found.lane
        ORDER BY order_at_ns, seq LIMIT 1
    )
    FROM found WHERE found.lane IS NOT NULL
)

-- name: finish: those without keys and schedules; for the others more is to be decided
UPDATE qj_jobs SET
    state = ended.column4, finished_at_ns = ended.column5, started_at_ns = ended.column6,
    running_at_ns = ended.column7, result = ended.column8, error = ended.column9, reason = ended.column10,
    failures = failures + ended.column11, owner = NULL, lease_until_ns = NULL
FROM (VALUES {values}) AS ended
WHERE id = ended.column1 AND attempt = ended.column2 AND owner = ended.column3
  AND state IN ('scheduled', 'started', 'running')
  AND overlap_key IS NULL AND unique_key IS NULL AND origin_schedule IS NULL
RETURNING id, task, state

-- name: held_of: of jobs that were not finished so, those that somebody holds
SELECT id FROM qj_jobs WHERE id IN (SELECT value FROM json_each(?))
  AND state IN ('scheduled', 'started', 'running')

-- name: count_outcome
INSERT INTO qj_outcomes (minute_ns, task, state, n) VALUES (?, ?, ?, ?)
ON CONFLICT (minute_ns, task, state) DO UPDATE SET n = n + excluded.n

-- name: forget_outcomes
DELETE FROM qj_outcomes WHERE minute_ns <= ?

-- name: renew
UPDATE qj_jobs SET lease_until_ns = coalesce(?, lease_until_ns)
FROM (VALUES {values}) AS alive
WHERE id = alive.column1 AND attempt = alive.column2 AND owner = ?
RETURNING id, cancel_requested

-- name: keep: what a body wants kept
UPDATE qj_jobs SET progress = coalesce(:progress, progress), checkpoint = coalesce(:checkpoint, checkpoint)
WHERE id = :id AND attempt = :attempt AND owner = :owner

-- name: began
UPDATE qj_jobs SET state = 'running', running_at_ns = :at, started_at_ns = coalesce(started_at_ns, :accepted, :at)
WHERE id = :id AND attempt = :attempt AND owner = :owner AND state IN ('scheduled', 'started')

-- name: accepted: by a queue that is not ours
UPDATE qj_jobs SET state = 'started', started_at_ns = :at
WHERE id = :id AND attempt = :attempt AND owner = :owner AND state = 'scheduled'

-- name: jobs_by_id
SELECT {columns} FROM qj_jobs WHERE id IN (SELECT value FROM json_each(?)) ORDER BY seq

-- name: shift_waiting: delays and what was due at once keep the time they have waited, and their order
UPDATE qj_jobs SET
    run_at_ns = run_at_ns + CASE
        WHEN delay_born = 1 THEN :step
        WHEN run_at_ns > :before THEN 0
        WHEN origin_trigger = 'backfill' THEN :step
        WHEN origin_schedule IS NULL AND json_extract(options, '$.run_at_ns') IS NULL THEN :step
        ELSE 0 END,
    order_at_ns = order_at_ns + CASE WHEN delay_born = 1 OR run_at_ns <= :before THEN :step ELSE 0 END,
    first_due_ns = first_due_ns + :step
WHERE state = 'submitted'

-- name: shift_leases
UPDATE qj_jobs SET lease_until_ns = lease_until_ns + ? WHERE lease_until_ns IS NOT NULL

-- name: purge: the oldest of those that are over, up to one of them
DELETE FROM qj_jobs WHERE seq IN (
    SELECT seq FROM qj_jobs
    WHERE finished_at_ns IS NOT NULL AND finished_at_ns <= :at AND (finished_at_ns < :at OR seq <= :seq) AND zombie = 0
    ORDER BY finished_at_ns, seq LIMIT :most
)

-- name: lines: the open jobs of overlap keys; of backfills those that are held
SELECT line.value, qj_jobs.id FROM json_each(?) AS line CROSS JOIN qj_jobs
WHERE overlap_key = line.value AND overlap_key IS NOT NULL AND (finished_at_ns IS NULL OR zombie = 1)
  AND (origin_trigger IS NOT 'backfill' OR zombie = 1 OR state IN ('scheduled', 'started', 'running'))
ORDER BY seq

-- name: unique_holder
SELECT job_id, until_ns FROM qj_unique WHERE task = ? AND key = ?

-- name: take_unique
INSERT OR REPLACE INTO qj_unique (task, key, job_id, until_ns) VALUES (?, ?, ?, ?)

-- name: sweep_uniques: periods that are over
DELETE FROM qj_unique WHERE until_ns IS NOT NULL AND until_ns <= ?

-- name: occurrences
SELECT nominal_ns, job_id FROM qj_occurrences
WHERE schedule_id = ? AND generation = ? AND nominal_ns IN (SELECT value FROM json_each(?))

-- name: occurred
INSERT OR IGNORE INTO qj_occurrences (schedule_id, generation, nominal_ns, job_id) VALUES (?, ?, ?, ?)

-- name: is_waited_for: whether a schedule is held up by one of these keys, or of these tasks
SELECT EXISTS (
    SELECT 1 FROM qj_schedules WHERE held_up_ns IS NOT NULL AND overlap_key IN (SELECT value FROM json_each(?))
) OR EXISTS (
    SELECT 1 FROM qj_schedules WHERE held_up_ns IS NOT NULL AND task IN (SELECT value FROM json_each(?))
)
