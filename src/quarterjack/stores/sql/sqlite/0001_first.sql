-- The first schema. Every table begins with qj_, so that the file may hold a program's own tables as well.
-- Instants are nanoseconds since 1970, UTC. What users gave (arguments, results, errors) is JSON in BLOBs,
-- through the app's codec if it has one.

-- Jobs. The columns from id to checkpoint are those of every durable store, in their order.
-- seq: the order of insertion; pages of a view go by it.
-- place: where a waiting job stands. 0: it does not wait; 1: it may be claimed; 2: its time has not come;
--        3: its time has come, but not its turn (jobs of one overlap key that run one at a time).
CREATE TABLE qj_jobs (
    seq                INTEGER PRIMARY KEY,
    id                 TEXT    NOT NULL UNIQUE,
    task               TEXT    NOT NULL,
    lane               TEXT    NOT NULL,
    queue              TEXT    NOT NULL,
    priority           INTEGER NOT NULL,
    max_rescues        INTEGER NOT NULL,
    call               BLOB,
    options            TEXT,
    unique_key         TEXT,
    unique_scope       TEXT,
    unique_conflict    TEXT,
    submitted_by       TEXT,
    parent             TEXT,
    origin_schedule    TEXT,
    origin_generation  INTEGER,
    origin_nominal_ns  INTEGER,
    origin_missed      INTEGER,
    origin_trigger     TEXT,
    submitted_at_ns    INTEGER,
    state              TEXT    NOT NULL,
    reason             TEXT,
    attempt            INTEGER NOT NULL,
    failures           INTEGER NOT NULL,
    rescues            INTEGER NOT NULL,
    owner              TEXT,
    lease_until_ns     INTEGER,
    run_at_ns          INTEGER NOT NULL,
    order_at_ns        INTEGER NOT NULL,
    delay_born         INTEGER NOT NULL,
    first_due_ns       INTEGER,
    scheduled_at_ns    INTEGER,
    started_at_ns      INTEGER,
    running_at_ns      INTEGER,
    finished_at_ns     INTEGER,
    cancel_requested   INTEGER NOT NULL,
    zombie             INTEGER NOT NULL,
    overlap_key        TEXT,
    serial             INTEGER NOT NULL,
    result             BLOB,
    error              BLOB,
    progress           BLOB,
    checkpoint         BLOB,
    place              INTEGER NOT NULL
) STRICT;

-- Partial indexes hold only the rows they are about, so a long history costs claims nothing.
CREATE INDEX qj_jobs_ready    ON qj_jobs (queue, lane, order_at_ns)  WHERE place = 1;
CREATE INDEX qj_jobs_delayed  ON qj_jobs (run_at_ns)                 WHERE place = 2;
CREATE INDEX qj_jobs_in_line  ON qj_jobs (overlap_key, (origin_trigger IS 'backfill'), lane, order_at_ns)
                                                                     WHERE place = 3;
CREATE INDEX qj_jobs_in_front ON qj_jobs (overlap_key)               WHERE serial = 1 AND place = 1;
CREATE INDEX qj_jobs_in_turn  ON qj_jobs (overlap_key)               WHERE serial = 1 AND (zombie = 1 OR state IN
                                                                       ('scheduled', 'started', 'running'));
CREATE INDEX qj_jobs_leased   ON qj_jobs (lease_until_ns)            WHERE lease_until_ns IS NOT NULL;
CREATE INDEX qj_jobs_open     ON qj_jobs (overlap_key)               WHERE overlap_key IS NOT NULL
                                                                       AND (finished_at_ns IS NULL OR zombie = 1);
CREATE INDEX qj_jobs_finished ON qj_jobs (finished_at_ns)            WHERE finished_at_ns IS NOT NULL;
CREATE INDEX qj_jobs_made_by  ON qj_jobs (origin_schedule)           WHERE origin_schedule IS NOT NULL;
CREATE INDEX qj_jobs_zombies  ON qj_jobs (zombie)                    WHERE zombie = 1;
CREATE INDEX qj_jobs_state    ON qj_jobs (state);

-- Unique keys: the newest job of each, and until when it holds it (null: as long as its scope says).
CREATE TABLE qj_unique (
    task      TEXT NOT NULL,
    key       TEXT NOT NULL,
    job_id    TEXT NOT NULL,
    until_ns  INTEGER,
    PRIMARY KEY (task, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX qj_unique_until ON qj_unique (until_ns) WHERE until_ns IS NOT NULL;
CREATE INDEX qj_unique_job   ON qj_unique (job_id);

-- Schedules, by the columns of every durable store.
CREATE TABLE qj_schedules (
    id                 TEXT    PRIMARY KEY,
    task               TEXT    NOT NULL,
    overlap_key        TEXT    NOT NULL,
    timing             TEXT    NOT NULL,
    payload            TEXT    NOT NULL,
    call               BLOB,
    in_code            INTEGER NOT NULL,
    version            TEXT,
    code_hash          TEXT,
    code_before        TEXT,
    resolved           TEXT,
    generation         INTEGER NOT NULL,
    revision           INTEGER NOT NULL,
    created_at_ns      INTEGER NOT NULL,
    cursor_ns          INTEGER NOT NULL,
    immediate_ns       INTEGER,
    is_plain           INTEGER NOT NULL,
    next_nominal_ns    INTEGER,
    next_due_ns        INTEGER,
    wake_ns            INTEGER,
    runs               INTEGER NOT NULL,
    paused_at_ns       INTEGER,
    paused_until_ns    INTEGER,
    pause_note         TEXT,
    parked_reason      TEXT,
    last_nominal_ns    INTEGER,
    newest_job_id      TEXT,
    held_up_ns         INTEGER,
    last_job_id        TEXT,
    last_state         TEXT,
    last_finished_ns   INTEGER,
    failures_in_a_row  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX qj_schedules_wake    ON qj_schedules (wake_ns)      WHERE wake_ns IS NOT NULL;
-- Those that wait for room under an overlap key, or for a unique key of their task.
CREATE INDEX qj_schedules_held_up ON qj_schedules (overlap_key)  WHERE held_up_ns IS NOT NULL;
CREATE INDEX qj_schedules_waiting ON qj_schedules (task)         WHERE held_up_ns IS NOT NULL;

-- The fire times that backfills have served. They outlive their jobs.
CREATE TABLE qj_occurrences (
    schedule_id  TEXT NOT NULL,
    generation   INTEGER NOT NULL,
    nominal_ns   INTEGER NOT NULL,
    job_id       TEXT NOT NULL,
    PRIMARY KEY (schedule_id, generation, nominal_ns)
) STRICT, WITHOUT ROWID;

-- How many jobs ended, per minute.
CREATE TABLE qj_outcomes (
    minute_ns  INTEGER NOT NULL,
    task       TEXT NOT NULL,
    state      TEXT NOT NULL,
    n          INTEGER NOT NULL,
    PRIMARY KEY (minute_ns, task, state)
) STRICT, WITHOUT ROWID;

-- Limits that all processes share.
CREATE TABLE qj_slots (
    name      TEXT NOT NULL,
    holder    TEXT NOT NULL,
    n         INTEGER NOT NULL,
    until_ns  INTEGER NOT NULL,
    PRIMARY KEY (name, holder)
) STRICT, WITHOUT ROWID;
CREATE TABLE qj_tokens (
    name        TEXT PRIMARY KEY,
    arrival_ns  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Who works on the file, and what an operator asked of them.
CREATE TABLE qj_workers (
    id             TEXT PRIMARY KEY,
    host           TEXT NOT NULL,
    pid            INTEGER NOT NULL,
    role           TEXT NOT NULL,
    queues         TEXT NOT NULL,
    started_at_ns  INTEGER NOT NULL,
    seen_at_ns     INTEGER NOT NULL,
    version        TEXT,
    running        INTEGER NOT NULL,
    zombies        INTEGER NOT NULL,
    command        TEXT
) STRICT, WITHOUT ROWID;

-- Who did what.
CREATE TABLE qj_audit (
    n        INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ns    INTEGER NOT NULL,
    who      TEXT NOT NULL,
    action   TEXT NOT NULL,
    subject  TEXT NOT NULL,
    note     TEXT NOT NULL
) STRICT;

-- Word from one process to the others, the newest thousand.
CREATE TABLE qj_hints (
    n        INTEGER PRIMARY KEY AUTOINCREMENT,
    process  TEXT NOT NULL,
    hint     TEXT NOT NULL,
    ids      TEXT NOT NULL
) STRICT;

-- How far the wall clock is ahead of the time since boot: one row.
CREATE TABLE qj_clock (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    boot      TEXT NOT NULL,
    ahead_ns  INTEGER NOT NULL
) STRICT;
