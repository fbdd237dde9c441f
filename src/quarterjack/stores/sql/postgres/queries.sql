-- The statements of a PostgreSQL store; `_postgres_sql` says what stands for the names in braces.
-- Each is prepared once per connection.

-- name: now_ns
SELECT {schema}.now_ns();

-- ---------------------------------------------------------------- jobs

-- name: put
-- Plain jobs: no unique key, no schedule. Answers with the instant that they were stored.
WITH now AS MATERIALIZED (SELECT {schema}.now_ns() AS ns),
new AS (
    INSERT INTO {schema}.job (
        id, task, lane, queue, priority, max_rescues, call, options, submitted_by, parent,
        run_at_ns, order_at_ns, delay_born, submitted_at_ns
    )
    SELECT
        j.id, j.task, j.lane, j.queue, j.priority, j.max_rescues, j.call, j.options, j.submitted_by, j.parent,
        coalesce(j.run_at_ns, now.ns + j.delay_ns),
        coalesce(j.run_at_ns, now.ns + j.delay_ns) + j.priority * {aging_ns},
        j.run_at_ns IS NULL AND j.delay_ns > 0,
        now.ns
    FROM now, {new_jobs} AS j
)
SELECT ns FROM now;

-- name: claim
-- Lease up to $3 waiting jobs of the queues $1, the earlier ones first, and the lanes $2. Candidates are
-- found without a lock, each lane by its index, so that neither a backlog of other lanes nor one that
-- somebody else claims from costs anything; more than are asked for, since others may be first. Nor do jobs of
-- a later time: none that is due stands in the order behind what the least urgent one would have now.
-- Of a serial key one job at most is held; that others claim one at the same moment, an index refuses.
-- While leases have run out nothing is claimed, if $7 says so: those jobs are to be taken back before.
-- Every row tells that, too; and, where $6 asks for it, when the next job of the queues $8 and the lanes $9 falls due
-- (or the last one that is looked at), whether a schedule is held up, and whether any job of these queues and the
-- lanes $10 may be claimed: where none may, nobody need ask for them.
WITH now AS MATERIALIZED (SELECT {schema}.now_ns() AS ns),
expired AS MATERIALIZED (
    SELECT $7::boolean AND EXISTS (
        SELECT FROM {schema}.job WHERE lease_until_ns <= (SELECT ns FROM now)
    ) AS is_so
),
latest AS MATERIALIZED (
    SELECT (SELECT ns FROM now) + {aging_ns} * greatest(4, (
        SELECT max(priority) FROM {schema}.job WHERE state = 'submitted' AND turn AND priority > 4
    )) AS order_at_ns
),
candidate AS MATERIALIZED (
    SELECT found.tid
    FROM unnest($1::text[]) WITH ORDINALITY AS q (name, place)
    CROSS JOIN unnest($2::text[]) AS l (name)
    CROSS JOIN LATERAL (
        SELECT j.ctid AS tid, j.order_at_ns, j.seq
        FROM {schema}.job AS j
        WHERE j.queue = q.name AND j.lane = l.name AND j.state = 'submitted' AND j.turn
            AND j.run_at_ns <= (SELECT ns FROM now) AND j.order_at_ns <= (SELECT order_at_ns FROM latest)
            AND NOT (j.serial AND EXISTS (
                SELECT FROM {schema}.job AS h WHERE h.overlap_key = j.overlap_key AND h.serial AND h.owner IS NOT NULL
            ))
        ORDER BY j.order_at_ns, j.seq
        LIMIT $3 + {spare}
    ) AS found
    WHERE NOT (SELECT is_so FROM expired)
    ORDER BY q.place, found.order_at_ns, found.seq
    LIMIT $3 + {spare}
),
free AS MATERIALIZED (
    SELECT j.ctid AS tid, j.serial, j.overlap_key, j.order_at_ns, j.seq
    FROM {schema}.job AS j
    WHERE j.ctid = ANY(ARRAY(SELECT tid FROM candidate))
        AND j.state || '' = 'submitted' AND j.turn -- so put, lest an index of all that waits be taken for it
    ORDER BY array_position($1::text[], j.queue), j.order_at_ns, j.seq
    LIMIT $3
    FOR UPDATE SKIP LOCKED
),
chosen AS MATERIALIZED (
    SELECT tid FROM free WHERE NOT serial
    UNION ALL
    (SELECT DISTINCT ON (overlap_key) tid FROM free WHERE serial ORDER BY overlap_key, order_at_ns, seq)
),
held AS (
    UPDATE {schema}.job
    SET state = 'scheduled', attempt = attempt + 1, owner = $4, scheduled_at_ns = (SELECT ns FROM now),
        order_at_ns = 0, started_at_ns = NULL, running_at_ns = NULL, reason = NULL,
        lease_until_ns = (SELECT ns FROM now) + $5::bigint
    WHERE ctid = ANY(ARRAY(SELECT tid FROM chosen))
    RETURNING seq, {columns}
)
SELECT
    (SELECT is_so FROM expired) AS has_expired,
    CASE WHEN $6::boolean THEN (
        SELECT run_at_ns FROM (
            SELECT run_at_ns, queue, lane, row_number() OVER (ORDER BY run_at_ns) AS n FROM {schema}.job
            WHERE state = 'submitted' AND run_at_ns > submitted_at_ns AND run_at_ns > (SELECT ns FROM now)
            ORDER BY run_at_ns
            LIMIT {look_ahead}
        ) AS near
        WHERE (queue = ANY($8::text[]) AND lane = ANY($9::text[])) OR n = {look_ahead}
        ORDER BY n
        LIMIT 1
    ) END AS next_run_at_ns,
    $6::boolean AND EXISTS (SELECT FROM {schema}.schedule WHERE held_up_ns IS NOT NULL) AS has_held_up,
    $6::boolean AND EXISTS (
        SELECT FROM unnest($8::text[]) AS q (name)
        CROSS JOIN unnest($10::text[]) AS l (name)
        CROSS JOIN LATERAL (
            SELECT FROM {schema}.job AS j
            WHERE j.queue = q.name AND j.lane = l.name AND j.state = 'submitted' AND j.turn
                AND j.run_at_ns <= (SELECT ns FROM now) AND j.order_at_ns <= (SELECT order_at_ns FROM latest)
            LIMIT 1 -- so put, lest all that waits be gone through
        ) AS waiting
    ) AS has_others,
    held.*
FROM (VALUES (1)) AS always (one)
LEFT JOIN held ON true
ORDER BY array_position($1::text[], held.queue), held.run_at_ns + held.priority * {aging_ns}, held.seq;

-- name: expired
-- Jobs whose lease has run out, and that nobody is just writing to.
SELECT id, attempt, owner, completed FROM {schema}.job
WHERE lease_until_ns <= (SELECT {schema}.now_ns())
ORDER BY lease_until_ns
LIMIT $1
FOR UPDATE SKIP LOCKED;

-- name: leased_by
-- What an owner holds that has not begun, as fences; by the index of leases.
SELECT id, attempt, owner FROM {schema}.job
WHERE lease_until_ns IS NOT NULL AND owner = $1 AND state = 'scheduled'
ORDER BY seq;

-- name: renew
-- Rows that somebody is just writing to (a transaction of `complete_in`) are passed over: they are held,
-- and none can be rescued while that goes on.
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($2::text[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bigint[], $7::bigint[])
        AS a (id, attempt, progress, checkpoint, running_at_ns, started_at_ns)
),
free AS MATERIALIZED (
    SELECT id FROM {schema}.job WHERE id = ANY($2::text[]) FOR UPDATE SKIP LOCKED
),
renewed AS (
    UPDATE {schema}.job AS j
    SET lease_until_ns = coalesce((SELECT {schema}.now_ns()) + $8::bigint, j.lease_until_ns),
        progress = coalesce(a.progress, j.progress),
        checkpoint = coalesce(a.checkpoint, j.checkpoint),
        running_at_ns = CASE WHEN j.state IN ('scheduled', 'started') THEN coalesce(a.running_at_ns, j.running_at_ns)
            ELSE j.running_at_ns END,
        started_at_ns = CASE WHEN j.state IN ('scheduled', 'started')
            THEN coalesce(j.started_at_ns, a.started_at_ns, a.running_at_ns) ELSE j.started_at_ns END,
        state = CASE WHEN j.state IN ('scheduled', 'started') AND a.running_at_ns IS NOT NULL THEN 'running'
            WHEN j.state = 'scheduled' AND a.started_at_ns IS NOT NULL THEN 'started' ELSE j.state END
    FROM asked AS a
    WHERE j.id = a.id AND j.attempt = a.attempt AND j.owner = $1 AND j.id = ANY(ARRAY(SELECT id FROM free))
)
SELECT a.id, j.id IS NULL AS is_lost, coalesce(j.cancel_requested, false) AS is_cancelled
FROM asked AS a
LEFT JOIN {schema}.job AS j ON j.id = a.id AND j.attempt = a.attempt AND j.owner = $1;

-- name: finish
-- The ends of plain jobs, fenced; others are left for a transaction that decides more. The rows leave the
-- hot table for the history, and are counted.
WITH f AS MATERIALIZED (
    SELECT * FROM {finishes} AS f
),
gone AS (
    DELETE FROM {schema}.job AS j USING f
    WHERE j.id = f.id AND j.attempt = f.attempt AND j.owner = f.owner AND j.state IN ('scheduled', 'started', 'running')
        AND j.overlap_key IS NULL AND j.unique_key IS NULL AND j.origin_schedule IS NULL AND NOT j.completed
    RETURNING
        j.seq, j.id, j.task, j.lane, j.queue, j.priority, j.max_rescues, j.call, j.options,
        j.submitted_by, j.parent, j.submitted_at_ns, f.state, f.reason, j.attempt,
        j.failures + CASE WHEN f.state IN ('failed', 'timed_out') THEN 1 ELSE 0 END AS failures, j.rescues,
        j.run_at_ns, j.order_at_ns, j.delay_born, j.first_due_ns, j.scheduled_at_ns,
        f.started_at_ns, f.running_at_ns, f.finished_at_ns, j.cancel_requested, f.result, f.error, j.progress, j.checkpoint
),
kept AS (
    INSERT INTO {schema}.job_history (
        seq, id, task, lane, queue, priority, max_rescues, call, options,
        submitted_by, parent, submitted_at_ns, state, reason, attempt,
        failures, rescues,
        run_at_ns, order_at_ns, delay_born, first_due_ns, scheduled_at_ns,
        started_at_ns, running_at_ns, finished_at_ns, cancel_requested, result, error, progress, checkpoint
    )
    SELECT * FROM gone
),
now AS MATERIALIZED (SELECT {schema}.now_ns() AS ns),
counted AS (
    INSERT INTO {schema}.outcome
    SELECT now.ns - now.ns % {minute_ns}, gone.task, gone.state, count(*) FROM gone, now GROUP BY 1, 2, 3
)
SELECT id, attempt, false AS is_completed, NULL::bytea AS result FROM gone
UNION ALL
SELECT j.id, j.attempt, true, j.result FROM {schema}.job AS j, f
WHERE (SELECT count(*) FROM gone) < (SELECT count(*) FROM f) -- else there is none to look for
    AND j.id = f.id AND j.attempt = f.attempt AND j.owner = f.owner AND j.completed;

-- name: completed
-- Of these jobs, those whose effects a transaction of a user's has committed.
SELECT id, attempt, result FROM {schema}.job WHERE id = ANY($1::text[]) AND completed;

-- ---------------------------------------------------------------- what a decision loads

-- name: lock
-- Wait for whoever decides about one of the names $1, in an order that is the same for everybody; tell the time then.
WITH taken AS MATERIALIZED (
    SELECT pg_advisory_xact_lock(number) FROM (
        SELECT DISTINCT hashtextextended('{schema}' || name, 0) AS number FROM unnest($1::text[]) AS n (name) ORDER BY 1
    ) AS numbers
)
SELECT {schema}.now_ns() FROM (SELECT count(*) FROM taken) AS all_of_them;

-- name: try_lock
-- As `lock`, without waiting: false if somebody has one of them.
SELECT coalesce(bool_and(pg_try_advisory_xact_lock(number)), true) FROM (
    SELECT DISTINCT hashtextextended('{schema}' || name, 0) AS number FROM unnest($1::text[]) AS n (name) ORDER BY 1
) AS numbers;

-- name: load_jobs
SELECT {columns} FROM {schema}.job WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE {wait};

-- name: load_finished
SELECT {columns} FROM {schema}.job_history WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE {wait};

-- name: load_lines
-- Open jobs of overlap keys in the order they came; of backfills only those that are held, or whose body is.
SELECT {columns} FROM {schema}.job
WHERE overlap_key = ANY($1::text[]) AND (origin_trigger IS DISTINCT FROM 'backfill' OR owner IS NOT NULL)
ORDER BY seq
FOR UPDATE {wait};

-- name: load_uniques
SELECT k.task, k.key, k.job_id, k.until_ns
FROM {schema}.unique_key AS k, unnest($1::text[], $2::text[]) AS asked (task, key)
WHERE k.task = asked.task AND k.key = asked.key;

-- name: load_schedules
SELECT {schedule_columns} FROM {schema}.schedule WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE {wait};

-- name: load_held_up
-- Schedules that wait for room, by overlap key ($1) or by the unique key of their jobs ($2, $3). They are few:
-- found by the index of those (the bound has the planner take it, whatever it knows of the table), then locked.
SELECT {schedule_columns} FROM {schema}.schedule
WHERE held_up_ns IS NOT NULL AND id = ANY(ARRAY(
    SELECT id FROM {schema}.schedule
    WHERE held_up_ns > -9223372036854775807 AND (
        overlap_key = ANY($1::text[])
        OR (task, unique_key) IN (SELECT task, key FROM unnest($2::text[], $3::text[]) AS asked (task, key))
    )
))
ORDER BY id
FOR UPDATE {wait};

-- name: load_occurrences
SELECT o.schedule_id, o.generation, o.nominal_ns, o.job_id
FROM {schema}.occurrence AS o, unnest($1::text[], $2::bigint[], $3::bigint[]) AS asked (schedule_id, generation, nominal_ns)
WHERE o.schedule_id = asked.schedule_id AND o.generation = asked.generation AND o.nominal_ns = asked.nominal_ns;

-- ---------------------------------------------------------------- what a decision writes (see also `_postgres_moves`)

-- name: give_turns
-- Of the serial jobs that wait for the keys $1 and are due, let the first one be claimed, and no other:
-- none where one is held. Backfills come last.
WITH now AS MATERIALIZED (SELECT {schema}.now_ns() AS ns),
first AS MATERIALIZED (
    SELECT (
        SELECT j.id FROM {schema}.job AS j
        WHERE j.overlap_key = k.key AND j.serial AND j.state = 'submitted' AND j.run_at_ns <= (SELECT ns FROM now)
        ORDER BY (j.origin_trigger IS NOT DISTINCT FROM 'backfill'), j.order_at_ns, j.seq
        LIMIT 1
    ) AS id
    FROM unnest($1::text[]) AS k (key)
    WHERE NOT EXISTS (
        SELECT FROM {schema}.job AS h WHERE h.overlap_key = k.key AND h.serial AND h.owner IS NOT NULL
    )
),
others AS MATERIALIZED (
    SELECT j.id FROM unnest($1::text[]) AS k (key)
    JOIN {schema}.job AS j ON j.overlap_key = k.key
    WHERE j.serial AND j.state = 'submitted' AND j.turn
        AND j.run_at_ns + 0 <= (SELECT ns FROM now) -- a sum, lest an index of all that waits be taken for it
)
UPDATE {schema}.job AS j SET turn = EXISTS (SELECT FROM first WHERE first.id = j.id)
WHERE j.id = ANY(ARRAY(SELECT id FROM first UNION SELECT id FROM others)) AND j.state = 'submitted';

-- name: remove_schedules
WITH made AS (DELETE FROM {schema}.occurrence WHERE schedule_id = ANY($1::text[]))
DELETE FROM {schema}.schedule WHERE id = ANY($1::text[]);

-- name: set_uniques
INSERT INTO {schema}.unique_key (task, key, job_id, until_ns)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
ON CONFLICT (task, key) DO UPDATE SET job_id = excluded.job_id, until_ns = excluded.until_ns;

-- name: free_uniques
DELETE FROM {schema}.unique_key AS k USING unnest($1::text[], $2::text[]) AS freed (task, key)
WHERE k.task = freed.task AND k.key = freed.key;

-- name: add_occurrences
INSERT INTO {schema}.occurrence SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[]);

-- name: add_outcomes
INSERT INTO {schema}.outcome SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[]);

-- ---------------------------------------------------------------- views

-- name: get
-- Jobs by their ids; no order.
SELECT {columns} FROM {schema}.job WHERE id = ANY($1::text[])
UNION ALL
SELECT {columns} FROM {schema}.job_history WHERE id = ANY($1::text[]);

-- name: newest
-- A page of jobs, newest first, below the place $8.
SELECT * FROM (
    (SELECT seq, {columns} FROM {schema}.job WHERE {filter} AND seq < $8::bigint ORDER BY seq DESC LIMIT $9)
    UNION ALL
    (SELECT seq, {columns} FROM {schema}.job_history WHERE {filter} AND seq < $8::bigint ORDER BY seq DESC LIMIT $9)
) AS found
ORDER BY seq DESC
LIMIT $9;

-- name: number
-- How many jobs are meant.
SELECT (SELECT count(*) FROM {schema}.job WHERE {filter}) + (SELECT count(*) FROM {schema}.job_history WHERE {filter});

-- name: slowest
-- A page of jobs by how long their body ran or has been running, below the duration $10 and the place $8.
SELECT * FROM (
    SELECT
        CASE
            WHEN running_at_ns IS NOT NULL AND state NOT IN ('new', 'submitted', 'scheduled', 'started')
            THEN coalesce(finished_at_ns, (SELECT {schema}.now_ns())) - running_at_ns
            ELSE -1
        END AS took_ns,
        seq, {columns}
    FROM (
        SELECT seq, {columns} FROM {schema}.job WHERE {filter}
        UNION ALL
        SELECT seq, {columns} FROM {schema}.job_history WHERE {filter}
    ) AS meant
) AS timed
WHERE (took_ns, seq) < ($10::bigint, $8::bigint)
ORDER BY took_ns DESC, seq DESC
LIMIT $9;

-- name: purge
-- Delete finished jobs that ended longer ago than $1, or beyond the newest $3 of them; at most $2.
-- Both are one range of the index: whichever of its two ends is the later one.
WITH bound AS MATERIALIZED (
    SELECT finished_at_ns, seq FROM (
        (
            SELECT finished_at_ns, seq FROM {schema}.job_history
            WHERE $3::bigint IS NOT NULL
            ORDER BY finished_at_ns DESC, seq DESC
            OFFSET $3::bigint LIMIT 1
        )
        UNION ALL
        SELECT {schema}.now_ns() - $1::bigint - 1, 9223372036854775807
    ) AS ends
    ORDER BY finished_at_ns DESC, seq DESC
    LIMIT 1
),
old AS MATERIALIZED (
    SELECT id FROM {schema}.job_history
    WHERE (finished_at_ns, seq) <= ((SELECT finished_at_ns FROM bound), (SELECT seq FROM bound))
    ORDER BY finished_at_ns, seq
    LIMIT $2
),
gone AS (
    DELETE FROM {schema}.job_history WHERE id = ANY(ARRAY(SELECT id FROM old)) RETURNING id
)
SELECT count(*) FROM gone;

-- name: tidy
-- Drop counts of days gone by, unique keys whose period is over, slots that ran out and full buckets; add up the counts of each minute that
-- has several rows of one kind. Only those of the last hour are looked at: the ones before have been.
WITH now AS MATERIALIZED (SELECT {schema}.now_ns() AS ns),
periods AS (
    DELETE FROM {schema}.unique_key WHERE until_ns <= (SELECT ns FROM now)
),
slots AS (
    DELETE FROM {schema}.limit_slot WHERE until_ns <= (SELECT ns FROM now)
),
buckets AS (
    DELETE FROM {schema}.limit_bucket WHERE arrival_ns <= (SELECT ns FROM now)
),
bygone AS (
    DELETE FROM {schema}.outcome WHERE minute_ns <= (SELECT ns FROM now) - {outcome_ns}
),
several AS MATERIALIZED (
    SELECT tid FROM (
        SELECT ctid AS tid, count(*) OVER (PARTITION BY minute_ns, task, state) AS n
        FROM {schema}.outcome
        WHERE minute_ns >= (SELECT ns FROM now) - {tidied_ns} AND minute_ns < (SELECT ns FROM now) - {minute_ns}
    ) AS counted
    WHERE n > 1
),
taken AS (
    DELETE FROM {schema}.outcome WHERE ctid = ANY(ARRAY(SELECT tid FROM several)) RETURNING *
)
INSERT INTO {schema}.outcome SELECT minute_ns, task, state, sum(n) FROM taken GROUP BY 1, 2, 3;

-- name: stats
-- How many jobs are in each state and queue, and the oldest run time that is due.
SELECT state, queue, count(*) AS n, min(run_at_ns) FILTER (WHERE run_at_ns <= (SELECT {schema}.now_ns())) AS oldest_due_ns
FROM {schema}.job GROUP BY state, queue
UNION ALL
SELECT state, queue, count(*), NULL FROM {schema}.job_history GROUP BY state, queue;

-- name: outcomes
SELECT minute_ns, task, state, sum(n)::bigint AS n FROM {schema}.outcome
WHERE minute_ns + {minute_ns} > $1 AND minute_ns > (SELECT {schema}.now_ns()) - {outcome_ns}
GROUP BY 1, 2, 3;

-- ---------------------------------------------------------------- schedules

-- name: schedule_get
SELECT {schedule_columns} FROM {schema}.schedule WHERE id = $1;

-- name: schedule_list
SELECT {schedule_columns} FROM {schema}.schedule ORDER BY id;

-- name: schedule_due
-- What has to be looked at within $1 nanoseconds from now.
SELECT {schedule_columns} FROM {schema}.schedule
WHERE wake_ns <= (SELECT {schema}.now_ns()) + $1::bigint
ORDER BY wake_ns, id
LIMIT $2;

-- ---------------------------------------------------------------- limits, workers, audit

-- name: limit_acquire
-- Take one of $3 slots for each of the holders $2, as many as are free; who waited as $5 waits no more.
-- Which were taken, and how many wait beside.
WITH gone AS (
    DELETE FROM {schema}.limit_slot WHERE name = $1 AND holder = $5 AND n = 0
),
tried AS MATERIALIZED (
    SELECT holder, {schema}.limit_acquire($1, holder, 1, $3, $4) AS is_taken FROM unnest($2::text[]) AS holder
)
SELECT
    coalesce((SELECT array_agg(holder) FROM tried WHERE is_taken), '{}'),
    (
        SELECT count(*) FROM {schema}.limit_slot
        WHERE name = $1 AND n = 0 AND holder IS DISTINCT FROM $5 AND until_ns > (SELECT {schema}.now_ns())
    );

-- name: limit_wait
-- Let it be known that $2 waits, if that is somebody; how many nanoseconds are left until the next slot runs out.
SELECT
    CASE WHEN $2::text IS NOT NULL THEN {schema}.limit_acquire($1, $2, 0, $3, $4) END,
    (
        SELECT min(until_ns) - (SELECT {schema}.now_ns()) FROM {schema}.limit_slot
        WHERE name = $1 AND n > 0 AND until_ns > (SELECT {schema}.now_ns())
    );

-- name: limit_renew
UPDATE {schema}.limit_slot SET until_ns = (SELECT {schema}.now_ns()) + $3
WHERE name = $1 AND holder = ANY($2::text[]) AND n > 0 AND until_ns > (SELECT {schema}.now_ns())
RETURNING holder;

-- name: limit_release
-- Give slots back; say whether somebody waits for one.
WITH gone AS (
    DELETE FROM {schema}.limit_slot WHERE name = $1 AND holder = ANY($2::text[]) AND n > 0
)
SELECT EXISTS (
    SELECT FROM {schema}.limit_slot WHERE name = $1 AND n = 0 AND until_ns > (SELECT {schema}.now_ns())
);

-- name: limit_take
SELECT {schema}.limit_take($1, $2, $3);

-- name: worker_put
-- Register or refresh a worker; the command that was left for it is answered until it has heard of it ($11).
WITH new AS (
    INSERT INTO {schema}.worker
        (id, host, pid, role, queues, started_at_ns, seen_at_ns, version, running, zombies, halt, parked)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $12, $13)
    ON CONFLICT (id) DO UPDATE SET
        host = excluded.host, pid = excluded.pid, role = excluded.role, queues = excluded.queues,
        started_at_ns = excluded.started_at_ns, seen_at_ns = excluded.seen_at_ns, version = excluded.version,
        running = excluded.running, zombies = excluded.zombies, command = nullif(worker.command, $11),
        halt = excluded.halt, parked = excluded.parked
    RETURNING command
)
SELECT command FROM new;

-- name: worker_list
SELECT id, host, pid, role, queues, started_at_ns, seen_at_ns, version, running, zombies, command, halt, parked
FROM {schema}.worker ORDER BY started_at_ns, id;

-- name: worker_remove
DELETE FROM {schema}.worker WHERE id = $1;

-- name: worker_command
UPDATE {schema}.worker SET command = $2 WHERE id = $1 RETURNING id;

-- name: audit_put
WITH old AS (
    DELETE FROM {schema}.audit WHERE seq <= (SELECT max(seq) FROM {schema}.audit) - $6::bigint
)
INSERT INTO {schema}.audit (at_ns, who, action, subject, note)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[]);

-- name: audit_list
SELECT at_ns, who, action, subject, note FROM {schema}.audit ORDER BY seq DESC LIMIT $1;
