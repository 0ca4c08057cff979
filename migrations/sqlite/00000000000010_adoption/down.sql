-- Fleetmark never goes back to an older schema: restore a backup instead.
SELECT 1;
