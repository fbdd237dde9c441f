-- oldest: 1
-- Whether a worker takes nothing more, and which tasks it begins no more. A version that does not know says neither.
ALTER TABLE qj_workers ADD COLUMN halt TEXT NOT NULL DEFAULT '';
ALTER TABLE qj_workers ADD COLUMN parked TEXT NOT NULL DEFAULT '[]';
