-- Usage is listed, summed and exported by organisation and time.
CREATE INDEX usage_by_org ON usage (org_id, admitted_at DESC);
