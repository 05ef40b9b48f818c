-- correct_alone: one ledger corrects at a time, so that a correction is the difference to all there are.
SELECT pg_advisory_xact_lock(hashtext('pilotlight corrections'));
