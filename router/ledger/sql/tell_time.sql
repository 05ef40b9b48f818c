-- tell_time: what Postgres' clock says, in Unix seconds: keys expire by it, and no other machine's clock need agree with it.
SELECT extract(epoch FROM clock_timestamp())::double precision;
