-- The schema of a quarterjack store. Instants are nanoseconds since 1970 in UTC,
-- by the server's clock. Users' data is bytes: JSON, or what a codec made of it.

CREATE TABLE {schema}.migration (
    number integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- The store's clock, in one place; tests put another in its stead.
CREATE FUNCTION {schema}.now_ns() RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000 $$;

-- The order in which jobs came.
CREATE SEQUENCE {schema}.job_seq;
CREATE SEQUENCE {schema}.enqueue_seq;

-- Jobs that wait or are held, and those whose body outlived its outcome ("zombie").
CREATE TABLE {schema}.job (
    seq bigint NOT NULL DEFAULT nextval('{schema}.job_seq'),
    turn boolean NOT NULL DEFAULT true,      -- false: another job of its serial key comes first
    completed boolean NOT NULL DEFAULT false, -- its effects and its result were committed together, by complete_in
    id text COLLATE "C" NOT NULL,
    task text COLLATE "C" NOT NULL,
    lane text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    priority bigint NOT NULL,
    max_rescues bigint NOT NULL DEFAULT 3,
    call bytea,
    options text,
    unique_key text COLLATE "C",
    unique_scope text,
    unique_conflict text,
    submitted_by text,
    parent text,
    origin_schedule text COLLATE "C",
    origin_generation bigint,
    origin_nominal_ns bigint,
    origin_missed bigint,
    origin_trigger text,
    submitted_at_ns bigint,
    state text COLLATE "C" NOT NULL DEFAULT 'submitted',
    reason text,
    attempt bigint NOT NULL DEFAULT 0,
    failures bigint NOT NULL DEFAULT 0,
    rescues bigint NOT NULL DEFAULT 0,
    owner text COLLATE "C",
    lease_until_ns bigint,
    run_at_ns bigint NOT NULL,
    order_at_ns bigint NOT NULL,
    delay_born boolean NOT NULL DEFAULT false,
    first_due_ns bigint,
    scheduled_at_ns bigint,
    started_at_ns bigint,
    running_at_ns bigint,
    finished_at_ns bigint,
    cancel_requested boolean NOT NULL DEFAULT false,
    zombie boolean NOT NULL DEFAULT false,
    overlap_key text COLLATE "C",
    serial boolean NOT NULL DEFAULT false,
    result bytea,
    error bytea,
    progress bytea,
    checkpoint bytea,
    CONSTRAINT job_pkey PRIMARY KEY (id)
);

-- Finished jobs leave that table for this one, which is read by views alone.
CREATE TABLE {schema}.job_history (LIKE {schema}.job INCLUDING DEFAULTS, CONSTRAINT job_history_pkey PRIMARY KEY (id));

-- run_at_ns stands last: the order is that of a claim, and what is not due yet is passed over in the index.
CREATE INDEX job_ready ON {schema}.job (queue, lane, order_at_ns, seq, run_at_ns) WHERE state = 'submitted' AND turn;
CREATE INDEX job_delayed ON {schema}.job (run_at_ns) WHERE state = 'submitted' AND run_at_ns > submitted_at_ns;
CREATE INDEX job_lease ON {schema}.job (lease_until_ns) WHERE lease_until_ns IS NOT NULL;
CREATE INDEX job_key ON {schema}.job (overlap_key, seq) WHERE overlap_key IS NOT NULL;
-- A row for fire times that were missed may be of the same instant as the run that stands for the latest of them, and
-- may be run again beside it.
CREATE UNIQUE INDEX job_occurrence ON {schema}.job (origin_schedule, origin_generation, origin_nominal_ns)
    WHERE origin_trigger = 'schedule' AND origin_missed = 0;
-- One job of a serial key is held at a time, whoever claims.
CREATE UNIQUE INDEX job_serial ON {schema}.job (overlap_key) WHERE serial AND owner IS NOT NULL;
CREATE INDEX job_line ON {schema}.job (overlap_key, (origin_trigger IS NOT DISTINCT FROM 'backfill'), order_at_ns, seq)
    WHERE serial AND state = 'submitted';
CREATE INDEX job_turn ON {schema}.job (overlap_key) WHERE serial AND state = 'submitted' AND turn;
CREATE INDEX job_newest ON {schema}.job (seq);
CREATE INDEX job_history_newest ON {schema}.job_history (seq);
CREATE INDEX job_history_age ON {schema}.job_history (finished_at_ns, seq);

-- The hot table turns over all the time: it is vacuumed by what has changed, not by how large it is.
ALTER TABLE {schema}.job SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000
);
ALTER TABLE {schema}.job_history SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.5);

-- Backfills: one job per occurrence ever, also when its row is long purged.
CREATE TABLE {schema}.occurrence (
    schedule_id text COLLATE "C" NOT NULL,
    generation bigint NOT NULL,
    nominal_ns bigint NOT NULL,
    job_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (schedule_id, generation, nominal_ns)
);

-- Unique keys: one job of a task holds a key, as long as its scope says or until an instant.
CREATE TABLE {schema}.unique_key (
    task text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    job_id text COLLATE "C" NOT NULL,
    until_ns bigint,
    PRIMARY KEY (task, key)
);
CREATE INDEX unique_key_until ON {schema}.unique_key (until_ns) WHERE until_ns IS NOT NULL;

CREATE TABLE {schema}.schedule (
    id text COLLATE "C" PRIMARY KEY,
    task text COLLATE "C" NOT NULL,
    overlap_key text COLLATE "C" NOT NULL,
    timing text NOT NULL,
    payload text NOT NULL,
    call bytea,
    in_code boolean NOT NULL,
    version text,
    code_hash text,
    code_before text,
    resolved text,
    generation bigint NOT NULL,
    revision bigint NOT NULL,
    created_at_ns bigint NOT NULL,
    cursor_ns bigint NOT NULL,
    immediate_ns bigint,
    is_plain boolean NOT NULL,
    next_nominal_ns bigint,
    next_due_ns bigint,
    wake_ns bigint,
    runs bigint NOT NULL,
    paused_at_ns bigint,
    paused_until_ns bigint,
    pause_note text,
    parked_reason text,
    last_nominal_ns bigint,
    last_job_id text,
    last_state text,
    last_finished_ns bigint,
    failures_in_a_row bigint NOT NULL,
    newest_job_id text,
    held_up_ns bigint,                        -- the fire time since which it waits for room
    unique_key text COLLATE "C"               -- of its jobs: what it may wait for, too
);
CREATE INDEX schedule_wake ON {schema}.schedule (wake_ns) WHERE wake_ns IS NOT NULL;
CREATE INDEX schedule_held_up ON {schema}.schedule (held_up_ns) WHERE held_up_ns IS NOT NULL; -- few

-- How jobs ended, per minute: a row for each time somebody counted; added up when it is read.
CREATE TABLE {schema}.outcome (
    minute_ns bigint NOT NULL,
    task text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    n bigint NOT NULL
);
CREATE INDEX outcome_minute ON {schema}.outcome (minute_ns);

CREATE TABLE {schema}.worker (
    id text COLLATE "C" PRIMARY KEY,
    host text NOT NULL,
    pid bigint NOT NULL,
    role text NOT NULL,
    queues text[] NOT NULL,
    started_at_ns bigint NOT NULL,
    seen_at_ns bigint NOT NULL,
    version text,
    running bigint NOT NULL,
    zombies bigint NOT NULL,
    command text
);

CREATE TABLE {schema}.audit (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ns bigint NOT NULL,
    who text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    note text NOT NULL
);

-- Slots of limits are rows that run out, never a counter; tokens are one instant per key (GCRA).
CREATE TABLE {schema}.limit_slot (
    name text COLLATE "C" NOT NULL,
    holder text COLLATE "C" NOT NULL,
    n bigint NOT NULL,
    until_ns bigint NOT NULL,
    PRIMARY KEY (name, holder)
);
CREATE TABLE {schema}.limit_bucket (
    name text COLLATE "C" PRIMARY KEY,
    arrival_ns bigint NOT NULL
);

-- Take n of maximum slots, in place of those that the holder has; all or none.
CREATE FUNCTION {schema}.limit_acquire(p_name text, p_holder text, p_n bigint, p_maximum bigint, p_ttl_ns bigint)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('limit:{schema}:' || p_name, 0));
    v_now := {schema}.now_ns();
    DELETE FROM {schema}.limit_slot WHERE name = p_name AND until_ns <= v_now;
    IF (SELECT coalesce(sum(n), 0) FROM {schema}.limit_slot WHERE name = p_name AND holder <> p_holder) + p_n > p_maximum
    THEN
        RETURN false;
    END IF;
    INSERT INTO {schema}.limit_slot VALUES (p_name, p_holder, p_n, v_now + p_ttl_ns)
    ON CONFLICT (name, holder) DO UPDATE SET n = excluded.n, until_ns = excluded.until_ns;
    RETURN true;
END $$;

-- Take n tokens (returns 0), or return how many nanoseconds are missing until they could be taken.
CREATE FUNCTION {schema}.limit_take(p_name text, p_cost_ns bigint, p_burst_ns bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint;
    v_arrival bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('limit:{schema}:' || p_name, 1));
    v_now := {schema}.now_ns();
    SELECT arrival_ns INTO v_arrival FROM {schema}.limit_bucket WHERE name = p_name;
    v_arrival := greatest(coalesce(v_arrival, v_now), v_now) + p_cost_ns;
    IF v_arrival - v_now > p_burst_ns THEN
        RETURN v_arrival - v_now - p_burst_ns;
    END IF;
    INSERT INTO {schema}.limit_bucket VALUES (p_name, v_arrival)
    ON CONFLICT (name) DO UPDATE SET arrival_ns = excluded.arrival_ns;
    RETURN 0;
END $$;

-- ---------------------------------------------------------------- inside other people's transactions

-- Put one job, given as JSON, in the transaction of the caller; answers {"id": …, "at": …} as text.
-- The id is another one's where that holds the unique key. Whoever puts the same key waits for the commit.
CREATE FUNCTION {schema}.put_job(p_job text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_job jsonb := p_job::jsonb;
    v_task text := v_job ->> 'task';
    v_key text := v_job ->> 'unique_key';
    v_now bigint;
    v_run_at bigint;
    v_holder {schema}.unique_key;
    v_state text;
BEGIN
    IF v_key IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('{schema}' || 'unique:' || v_task || chr(31) || v_key, 0));
    END IF;
    v_now := {schema}.now_ns();
    IF v_key IS NOT NULL THEN
        SELECT * INTO v_holder FROM {schema}.unique_key WHERE task = v_task AND key = v_key;
        SELECT state INTO v_state FROM {schema}.job WHERE id = v_holder.job_id;
        IF v_holder.until_ns > v_now OR (
            v_holder.until_ns IS NULL
            AND v_state = ANY(CASE WHEN v_job ->> 'unique_scope' = 'queued' THEN ARRAY['submitted']
                ELSE ARRAY['submitted', 'scheduled', 'started', 'running'] END)
        ) THEN
            RETURN jsonb_build_object('id', v_holder.job_id, 'at', v_now)::text;
        END IF;
        INSERT INTO {schema}.unique_key (task, key, job_id, until_ns)
        VALUES (v_task, v_key, v_job ->> 'id', v_now + (v_job ->> 'unique_ns')::bigint)
        ON CONFLICT (task, key) DO UPDATE SET job_id = excluded.job_id, until_ns = excluded.until_ns;
    END IF;
    v_run_at := coalesce((v_job ->> 'run_at_ns')::bigint, v_now + coalesce((v_job ->> 'delay_ns')::bigint, 0));
    INSERT INTO {schema}.job (
        id, task, lane, queue, priority, max_rescues, call, options, unique_key, unique_scope, unique_conflict,
        submitted_by, parent, run_at_ns, order_at_ns, delay_born, submitted_at_ns
    ) VALUES (
        v_job ->> 'id', v_task, v_job ->> 'lane', v_job ->> 'queue', (v_job ->> 'priority')::bigint,
        (v_job ->> 'max_rescues')::bigint, decode(v_job ->> 'call', 'base64'), v_job ->> 'options',
        v_key, v_job ->> 'unique_scope', v_job ->> 'unique_conflict', v_job ->> 'submitted_by', v_job ->> 'parent',
        v_run_at, v_run_at + (v_job ->> 'priority')::bigint * 10000000000,
        v_job ->> 'run_at_ns' IS NULL AND v_run_at > v_now, v_now
    );
    RETURN jsonb_build_object('id', v_job ->> 'id', 'at', v_now)::text;
END $$;

-- Put one job from any language: SELECT quarterjack.enqueue('send_mail', '["a@b.c"]'). Returns its id, or that of
-- the unfinished job which holds the unique key.
CREATE FUNCTION {schema}.enqueue(
    task text,
    args jsonb DEFAULT '[]',
    kwargs jsonb DEFAULT '{}',
    queue text DEFAULT 'default',
    priority integer DEFAULT 2,
    delay interval DEFAULT '0',
    run_at timestamptz DEFAULT NULL,
    unique_key text DEFAULT NULL
) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF jsonb_typeof(args) <> 'array' OR jsonb_typeof(kwargs) <> 'object' THEN
        RAISE EXCEPTION 'args must be a JSON array and kwargs a JSON object';
    END IF;
    RETURN {schema}.put_job(jsonb_build_object(
        'id', 'sql-' || to_hex(nextval('{schema}.enqueue_seq')),
        'task', task, 'lane', task, 'queue', queue, 'priority', priority, 'max_rescues', 3,
        'call', encode(convert_to(jsonb_build_array(args, kwargs)::text, 'UTF8'), 'base64'),
        'unique_key', unique_key, 'unique_scope', CASE WHEN unique_key IS NOT NULL THEN 'unfinished' END,
        'unique_conflict', CASE WHEN unique_key IS NOT NULL THEN 'return' END,
        'delay_ns', (extract(epoch FROM delay) * 1000000)::bigint * 1000,
        'run_at_ns', (extract(epoch FROM run_at) * 1000000)::bigint * 1000
    )::text)::jsonb ->> 'id';
END $$;

-- The effects of a held job are committed with the caller's transaction: from then on it is done, whatever
-- becomes of its worker. Says whether the caller holds it.
CREATE FUNCTION {schema}.complete_job(p_id text, p_attempt bigint, p_owner text, p_result text)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE {schema}.job SET completed = true, result = decode(p_result, 'base64')
    WHERE id = p_id AND attempt = p_attempt AND owner = p_owner AND state IN ('scheduled', 'started', 'running');
    RETURN FOUND;
END $$;
