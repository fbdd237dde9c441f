-- oldest: 1
-- Which versions can live with a step that they do not know: those that know this one. Null: none can.
ALTER TABLE qj_schema ADD COLUMN oldest INTEGER;
