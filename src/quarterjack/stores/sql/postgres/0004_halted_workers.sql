-- oldest: 1
-- Whether a worker takes nothing more, and which tasks it begins no more. A version that does not know says neither.
ALTER TABLE {schema}.worker ADD COLUMN halt text NOT NULL DEFAULT '', ADD COLUMN parked text[] NOT NULL DEFAULT '{}';
