-- find_endpoint_id: the id of the endpoint named $1 of the organisation $2, also of one that has been removed: its bills remain.
SELECT endpoint_id FROM endpoints WHERE name = $1 AND org_id = $2;
